// Package config reads the one YAML file that each Cordon program has, and
// describes its keys.
//
// A file is read strictly: an unknown key, a key given twice, a value of the
// wrong type, an anchor or alias, a second document, text that is not UTF-8,
// or a file above [MaxSize] is refused, and every fault that can be found is
// reported at once with its file, line and column and the line itself.
//
// A program keeps its configuration in a struct whose fields carry two tags:
//
//	type Config struct {
//		// Listen is where administrators and browsers connect.
//		Listen netip.AddrPort `yaml:"listen" doc:"Address and port of the console and the API."`
//	}
//
// yaml names the key; doc says in one sentence what it does, for
// `check-config --explain` and for the test that every key is in the docs
// page ([MissingInDocs]). The defaults are the values that the struct holds
// when [Load] is called.
package config
