// Package agent is Cordon on an endpoint: it finds the process behind an alert,
// takes the threat off the host, and undoes what it did when asked.
//
// Agent wires the parts: observe keeps the history, assess decides, clean acts
// within what guard allows, vault and journal remember, link speaks to the
// mitigator.
package agent
