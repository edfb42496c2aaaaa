// Package vault takes files, symbolic links and lines of files away from a host
// in a way that can be undone.
//
// Each item has a folder of its own below the vault's: manifest.json tells what
// was where, with owner, mode, times, extended attributes and the flags of
// chattr(1); content.age holds the content, encrypted to the vault's own X25519
// identity, so that no scanner and no mistake can run it. The manifest is on
// disk before the original is touched.
package vault
