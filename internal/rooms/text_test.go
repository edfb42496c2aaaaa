package rooms

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestDocComments holds that every package and every exported type, function,
// method, constant and variable has a doc comment.
func TestDocComments(t *testing.T) {
	for _, p := range goList(t, "./...") {
		documented, written := false, false
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Error(err)
				continue
			}
			documented = documented || file.Doc != nil
			if ast.IsGenerated(file) {
				continue
			}
			written = true
			for _, n := range undocumented(file) {
				t.Errorf("%s: exported %s has no doc comment", fset.Position(n.Pos()), n.Name)
			}
		}
		if written && !documented {
			t.Errorf("%s: no package comment", p.ImportPath)
		}
	}
}

// undocumented returns the exported names of file that no comment explains.
func undocumented(file *ast.File) []*ast.Ident {
	var bad []*ast.Ident
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) && file.Name.Name != "main" {
				bad = append(bad, d.Name)
			}
		case *ast.GenDecl:
			bad = append(bad, undocumentedSpecs(d)...)
		}
	}
	return bad
}

func undocumentedSpecs(d *ast.GenDecl) []*ast.Ident {
	var bad []*ast.Ident
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if d.Doc == nil && s.Doc == nil && s.Comment == nil && s.Name.IsExported() {
				bad = append(bad, s.Name)
			}
		case *ast.ValueSpec:
			for _, n := range s.Names {
				if d.Doc == nil && s.Doc == nil && s.Comment == nil && n.IsExported() {
					bad = append(bad, n)
				}
			}
		}
	}
	return bad
}

// exportedReceiver reports whether d is a function, or a method of an exported
// type; the methods of others are reached through interfaces that say it.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if generic, ok := t.(*ast.IndexExpr); ok {
		t = generic.X
	}
	name, ok := t.(*ast.Ident)
	return ok && name.IsExported()
}

func TestUndocumentedIsSeen(t *testing.T) {
	const source = `package p
type T struct{}
func (T) M() {}
func F() {}
const C = 1
type t struct{}
func (t) M() {}
// D is documented.
func D() {}
`
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range undocumented(file) {
		got = append(got, n.Name)
	}
	if s := strings.Join(got, " "); s != "T M F C" {
		t.Errorf("undocumented = %q, want T M F C", s)
	}
}

// TestTextIsOfTheProduct holds that no file names the machine it was written
// on, or where packages are fetched from. The words are joined here from parts,
// so that this file does not hold them.
func TestTextIsOfTheProduct(t *testing.T) {
	refused := []string{
		"/wo" + "rk/", "/tmp/" + "brief", "/tmp/" + "gobin",
		"proxy." + "golang.org", "sum." + "golang.org", "pypi" + ".org", "registry." + "npmjs", "crates" + ".io", "deb." + "debian.org",
		"MEASURED" + ".md", "LIBRARIES" + ".md", "EXAMPLES" + ".md", "DESIGN" + ".md",
	}
	cmd := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	seen := 0
	for _, name := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil || !utf8.Valid(data) {
			continue
		}
		seen++
		for _, word := range refused {
			if i := bytes.Index(data, []byte(word)); i >= 0 {
				t.Errorf("%s:%d: says %q", name, 1+bytes.Count(data[:i], []byte("\n")), word)
			}
		}
	}
	if seen < 20 {
		t.Fatalf("only %d text files looked at: the listing is wrong", seen)
	}
}
