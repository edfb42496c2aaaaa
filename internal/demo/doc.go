// Package demo plays Cordon's whole story on a LAN of namespaces: an endpoint
// that is cleaned, one that cannot be and is cut off, one without an agent, a
// release, a mitigator that is killed, an address that changes. It drives the
// real programs as processes on the LAN's hosts, with configuration files,
// enrolment and the command line as an administrator has them, measures, and
// checks each step from outside. It knows none of the programs' insides.
//
// The program that uses the package calls testlan.RunActor first in main.
// Everything needs root. The machine's own network is never touched.
package demo
