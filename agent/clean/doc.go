// Package clean takes a threat off a running host: it stops the whole tree of
// processes before one of them can react, ends their connections, disables what
// starts them and moves their files into the vault.
package clean
