package deps

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "penne"

// listed is what the test uses of one `go list -json` record.
type listed struct {
	ImportPath string
	Name       string
	Doc        string
	Imports    []string
	Deps       []string
	GoFiles    []string
	Error      *struct{ Err string }
}

// rel gives a package's path inside the module, and whether it is in it.
func rel(importPath string) (string, bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// A variant is one way to build the module; files differ by architecture and tag, so imports may too.
type variant struct {
	name, arch string
	flags      []string
}

var variants = []variant{
	{"amd64", "amd64", nil},
	{"arm64", "arm64", nil},
	{"purego", "amd64", []string{"-tags", "purego"}},
}

// list runs go list over the whole module.
func list(t *testing.T, v variant) []listed {
	t.Helper()
	args := append([]string{"list", "-e", "-json=ImportPath,Name,Doc,Imports,Deps,GoFiles,Error"}, v.flags...)
	cmd := exec.Command("go", append(args, "./...")...)
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+v.arch, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v: %s", err, stderr.Bytes())
	}
	var pkgs []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}

// root is the module's directory: two above this one.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatalf("find the module's root: %v", err)
	}
	return dir
}

// source is one parsed Go file, whatever its build constraints.
type source struct {
	path string // slash-separated, from the module's root
	fset *token.FileSet
	ast  *ast.File
}

// sources parses every Go file of the module: constraints hide files from go list, not from here.
func sources(t *testing.T) []source {
	t.Helper()
	top := root(t)
	var files []source
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != top && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		short, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, source{filepath.ToSlash(short), fset, f})
		return nil
	})
	if err != nil {
		t.Fatalf("parse the module: %v", err)
	}
	return files
}

// match tells whether a path inside the module, or an import path, is meant by a pattern.
func match(pattern, path string) bool {
	switch prefix, tree := strings.CutSuffix(pattern, "..."); {
	case !tree:
		return pattern == path
	case prefix == "":
		return true
	default:
		return path == strings.TrimSuffix(prefix, "/") || strings.HasPrefix(path, prefix)
	}
}

func matchAny(patterns []string, path string) bool {
	for _, p := range patterns {
		if match(p, path) {
			return true
		}
	}
	return false
}
