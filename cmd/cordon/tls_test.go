package main

import (
	"crypto/tls"
	"io"
	"log"

	"github.com/cordon-security/cordon/internal/pki"
)

func serverTLS(server *pki.Server) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: server.GetCertificate, NextProtos: []string{"h2", "http/1.1"}}
}

// discarded is the log of servers whose clients break off on purpose.
func discarded() *log.Logger { return log.New(io.Discard, "", 0) }
