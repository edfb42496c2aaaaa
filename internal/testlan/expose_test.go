package testlan

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestExposeReachesIntoTheHostAndEndsWithIt(t *testing.T) {
	needRoot(t)
	before := machineNetwork(t)
	lan := newStandard(t, StandardOptions{NoSystemd: true})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	listen := netip.MustParseAddrPort(taken.Addr().String())
	at, err := lan.Appliance.Expose(t.Context(), listen, netip.AddrPortFrom(WebIPv4, 80))
	if err != nil {
		t.Fatal(err)
	}
	if at == listen || !at.Addr().IsLoopback() {
		t.Errorf("it listens at %s", at)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	answer, err := client.Get("http://" + at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil || strings.TrimSpace(string(page)) != WebText {
		t.Errorf("the page is %q, %v", page, err)
	}
	expectSameMachine(t, before)
	if _, err := lan.Appliance.Expose(t.Context(), netip.MustParseAddrPort("0.0.0.0:0"), netip.AddrPortFrom(WebIPv4, 80)); err == nil {
		t.Error("it would listen on all of the machine's addresses")
	}
	if err := lan.Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", at.String())
		if err != nil {
			break
		}
		conn.Close()
		if time.Now().After(end) {
			t.Fatal("it still listens after the LAN went")
		}
	}
}

func TestCheck(t *testing.T) {
	needRoot(t)
	before := machineNetwork(t)
	if err := Check(); err != nil {
		t.Error(err)
	}
	expectSameMachine(t, before)
}
