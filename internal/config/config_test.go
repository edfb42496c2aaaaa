package config

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

type source struct {
	Name string `yaml:"name" doc:"What the log calls it."`
	Path string `yaml:"path" doc:"The file."`
}

type sample struct {
	Listen   netip.AddrPort        `yaml:"listen" doc:"Where to listen."`
	Networks []netip.Prefix        `yaml:"home_networks" doc:"The LAN."`
	MACs     []MAC                 `yaml:"macs" doc:"Addresses."`
	Hold     time.Duration         `yaml:"hold" doc:"How long."`
	Limit    uint8                 `yaml:"limit" doc:"How many."`
	Enforce  bool                  `yaml:"enforce" doc:"Whether."`
	Rate     float64               `yaml:"rate" doc:"How often."`
	Sources  []source              `yaml:"sources" doc:"Where alerts come from."`
	Store    struct{ Path string } `yaml:"store" doc:"The store."`
	Users    map[string]source     `yaml:"users" doc:"Who."`
	TLS      *source               `yaml:"tls" doc:"Certificates."`
}

func (s *sample) Validate() error {
	var errs []error
	if s.Hold < 0 {
		errs = append(errs, Invalid("hold", "must not be negative"))
	}
	for i, src := range s.Sources {
		if src.Path == "" {
			errs = append(errs, Invalid("sources["+string(rune('0'+i))+"].path", "must not be empty"))
		}
	}
	return errors.Join(errs...)
}

func defaults() sample {
	return sample{Hold: time.Hour, Limit: 5, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
}

func TestParse(t *testing.T) {
	const text = `
# a comment
listen: "[::1]:8443"
home_networks: [192.0.2.0/24, "fd00::/8"]
macs:
  - 00:11:22:33:44:55
  - 00-11-22-AA-bb-55
hold: 90s
limit: 7
enforce: true
rate: 1
sources:
  - name: "eve"
    path: /var/log/suricata/eve.json
store:
  path: /x
users:
  ann: {name: Ann}
tls:
`
	got := defaults()
	if err := Parse("c.yaml", []byte(text), &got); err != nil {
		t.Fatal(err)
	}
	want := sample{
		Listen:   netip.MustParseAddrPort("[::1]:8443"),
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("fd00::/8")},
		MACs:     []MAC{{0, 0x11, 0x22, 0x33, 0x44, 0x55}, {0, 0x11, 0x22, 0xaa, 0xbb, 0x55}},
		Hold:     90 * time.Second, Limit: 7, Enforce: true, Rate: 1,
		Sources: []source{{"eve", "/var/log/suricata/eve.json"}},
		Users:   map[string]source{"ann": {Name: "Ann"}},
	}
	want.Store.Path = "/x"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDefaultsStay(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "store:\n", "users:\n"} {
		got := defaults()
		if err := Parse("c.yaml", []byte(text), &got); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if want := defaults(); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown key", "holt: 1h\n", "c.yaml:1:1: unknown key \"holt\" (did you mean \"hold\"?)\n    holt: 1h\n    ^"},
		{"unknown key inside", "sources:\n  - nmae: x\n    path: /x\n", `c.yaml:2:5: unknown key "nmae" in sources[0] (did you mean "name"?)`},
		{"unknown key far", "tls:\n  zebra: x\n", `c.yaml:2:3: unknown key "zebra" in tls (known: name, path)`},
		{"twice", "limit: 1\nlimit: 2\n", `c.yaml:2:1: key "limit" is given twice`},
		{"two documents", "limit: 1\n---\nlimit: 2\n", "c.yaml:3:1: a second document"},
		{"duration without unit", "hold: 90\n", `c.yaml:1:7: hold: "90" is not a duration (write it with a unit`},
		{"prefix", "home_networks:\n  - 10.0.0.0/40\n", "c.yaml:2:5: home_networks[0]: expected network prefix"},
		{"mac", "macs: [1c:2]\n", "is not a MAC address (write it as 00:11:22:33:44:55)"},
		{"infiniband", "macs: [\"00:11:22:33:44:55:66:77\"]\n", "is not a MAC address"},
		{"bool", "enforce: yes please\n", `c.yaml:1:10: enforce: expected true or false, got the text "yes please"`},
		{"number too large", "limit: 256\n", "limit: expected a whole number from 0 on, of 8 bits, got 256"},
		{"number as text", "sources: [{name: 12}]\n", "sources[0].name: expected text, got the number 12 (put it in quotes)"},
		{"not a list", "home_networks: 10.0.0.0/8\n", "home_networks: expected a list, got the text"},
		{"not a block", "store: 5\n", "store: expected keys and values, got the number 5"},
		{"no value", "hold:\n", "c.yaml:1:1: hold has no value: expected duration (remove the key for its default)"},
		{"anchor", "store: &a {path: x}\n", "anchors and aliases are not allowed"},
		{"merge", "store: {<<: 1}\n", "not allowed"},
		{"tag", "hold: !!str 1h\n", "tags are not allowed"},
		{"syntax", "store: [\n", "c.yaml:"},
		{"tab", "store:\n\tpath: x\n", "c.yaml:2:1: "},
		{"nul", "hold: 1h\x00\n", "NUL byte"},
		{"latin1", "hold: \xe4\n", "not UTF-8"},
		{"too large", "#" + strings.Repeat("x", MaxSize), "larger than 1024 KiB"},
		{"too many lines", strings.Repeat("#\n", maxItems+1), "more than 20000 lines"},
		{"too many faults", strings.Repeat("limit: 1\n", 500), "449 more faults are not shown"},
		{"deep flow", "store: " + strings.Repeat("[", 100000), "nested deeper"},
		{"deep list", strings.Repeat("- ", 100000), "nested deeper"},
		{"a list as file", "- a\n", "the file: expected keys and values, got a list"},
		{"validate", "sources:\n  - name: a\nhold: -1s\n", "c.yaml:2:5: sources[0].path: must not be empty"},
		{"ipv6 without quotes", "home_networks:\n  - fd00::\n", "put an IPv6 address in quotes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := defaults()
			err := Parse("c.yaml", []byte(c.text), &got)
			var faults *Error
			if !errors.As(err, &faults) {
				t.Fatalf("error is %v (%T), want *Error", err, err)
			}
			if faults.ExitCode() != 78 {
				t.Errorf("exit code %d", faults.ExitCode())
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got:\n%v\nwant it to hold:\n%s", err, c.want)
			}
			if want := defaults(); !reflect.DeepEqual(got, want) {
				t.Errorf("the target was changed to %+v", got)
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	const text = "holt: 1h\nlimit: many\nsources:\n  - path: [1]\n    x: 1\nmacs: [zz]\n"
	c := defaults()
	var e *Error
	if err := Parse("c.yaml", []byte(text), &c); !errors.As(err, &e) {
		t.Fatal(err)
	}
	var lines []int
	for _, f := range e.Faults {
		lines = append(lines, f.Line)
	}
	if want := []int{1, 2, 4, 5, 6}; !reflect.DeepEqual(lines, want) {
		t.Errorf("faults on lines %v, want %v:\n%v", lines, want, e)
	}
}

func TestLongLinesAreClipped(t *testing.T) {
	c := defaults()
	err := Parse("c.yaml", []byte("macs: ["+strings.Repeat("a ", 5000)+", 0-0, "+strings.Repeat("b ", 5000)+"]"), &c)
	if err == nil || len(err.Error()) > 3000 {
		t.Fatalf("error of %d bytes", len(err.Error()))
	}
	lines := strings.Split(err.Error(), "\n")
	mark := strings.Index(lines[5], "^")
	if !strings.HasPrefix(lines[4][mark:], "0-0,") {
		t.Errorf("the mark is not under the fault:\n%s", err)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	c := defaults()
	if err := Load(path, &c); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("limit: 9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Load(path, &c); err != nil || c.Limit != 9 {
		t.Errorf("limit = %d, %v", c.Limit, err)
	}
	if err := Load(filepath.Dir(path), &c); err == nil {
		t.Error("a folder was loaded")
	}
	if err := Load(path, c); err == nil {
		t.Error("a target that is no pointer was taken")
	}
}

func TestDescribe(t *testing.T) {
	var lines []string
	for _, k := range Describe(defaults()) {
		lines = append(lines, k.Path+"|"+k.Type+"|"+k.Default+"|"+k.Doc)
	}
	want := []string{
		"listen|address:port||Where to listen.",
		"home_networks|list of network prefix|[10.0.0.0/8]|The LAN.",
		"macs|list of MAC address||Addresses.",
		"hold|duration|1h|How long.",
		"limit|whole number|5|How many.",
		"enforce|true or false|false|Whether.",
		"rate|number||How often.",
		"sources|list of block||Where alerts come from.",
		"sources[].name|text||What the log calls it.",
		"sources[].path|text||The file.",
		"store.path|text||",
		"users|block of NAME: block||Who.",
		"users.NAME.name|text||What the log calls it.",
		"users.NAME.path|text||The file.",
		"tls.name|text||What the log calls it.",
		"tls.path|text||The file.",
	}
	if !reflect.DeepEqual(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	page := "`listen` `home_networks` `macs` `hold` `limit` `enforce` `rate` `sources` `sources[].name` `sources[].path` `store.path` `users` `users.NAME.name` `users.NAME.path` `tls.name`"
	if got := MissingInDocs(page, defaults()); !reflect.DeepEqual(got, []string{"store.path: no doc tag", "tls.path: not in the docs page"}) {
		t.Errorf("MissingInDocs = %v", got)
	}
	var table bytes.Buffer
	if err := WriteReference(&table, defaults()); err != nil || !strings.Contains(table.String(), "home_networks") {
		t.Errorf("table: %v\n%s", err, &table)
	}
}

func TestMAC(t *testing.T) {
	var m MAC
	if err := m.UnmarshalText([]byte("0011.2233.44FF")); err != nil || m.String() != "00:11:22:33:44:ff" {
		t.Errorf("%v %v", m, err)
	}
	if text, _ := m.MarshalText(); string(text) != net.HardwareAddr(m).String() || !bytes.Equal(m.HardwareAddr(), m) {
		t.Errorf("%s", text)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "limit: 5\n", "sources:\n  - name: a\n    path: b\n", "store: {path: x}\n", "a: &b [*b]\n", "? x\n: y\n",
		"hold: 1h\n---\nhold: 2h\n", "macs: [00:11:22:33:44:55]\n", "{", "[", "- - -", "%YAML 1.2\n---\na", "a: |\n  b\n", "<<: *x\n", "\ufeffa: b",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got := defaults()
		err := Parse("c.yaml", data, &got)
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("error of type %T: %v", err, err)
		}
		if err != nil && !reflect.DeepEqual(got, defaults()) {
			t.Fatal("the target was changed by a faulty file")
		}
	})
}
