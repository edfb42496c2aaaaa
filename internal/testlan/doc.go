// Package testlan builds a small local network out of Linux namespaces, for
// integration tests and for the demonstration.
//
// Every host of a [LAN] has a network, mount, PID, IPC and host-name namespace
// of its own. Its root is an overlay over the machine's root whose upper layer
// is a tmpfs, so a host has every program of the machine and can change any
// file without changing the machine. A host either runs a small init or boots
// systemd as its PID 1. Links are made straight inside the namespaces: nothing
// is ever added to the machine's own network.
//
// A program that uses the package calls [RunActor] first thing in main or
// TestMain: hosts' first processes and the small servers on them (a C2, a web
// page, a name server) are the same binary, started again in another role.
//
//	func TestMain(m *testing.M) {
//		testlan.RunActor()
//		os.Exit(m.Run())
//	}
//
//	lan, err := testlan.NewStandard(ctx, testlan.StandardOptions{})
//	defer lan.Close()
//	rtt, err := lan.Alice.Ping(ctx, testlan.PrinterIPv4, time.Second)
//
// Everything needs root. Values are safe for concurrent use unless a comment
// says otherwise.
package testlan
