package deps

import (
	"go/ast"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layerOf finds a package's layer; test doubles (tap/taptest and their like) are outside the product.
func layerOf(pkg string) (layer, bool) {
	if l, ok := layout[pkg]; ok {
		return l, true
	}
	top, _, _ := strings.Cut(pkg, "/")
	if slices.Contains(outsideRoots, top) || strings.HasSuffix(path.Base(pkg), "test") {
		return outside, true
	}
	return 0, false
}

func TestEveryPackageIsInTheLayout(t *testing.T) {
	exists := map[string]bool{}
	for _, p := range list(t, variants[0]) {
		pkg, _ := rel(p.ImportPath)
		exists[pkg] = true
		if _, ok := layerOf(pkg); !ok {
			t.Errorf("package %s is in no layer: move it to where doc/architecture.md has room for it, "+
				"or add it there and to the table in test/deps", pkg)
		}
	}
	for pkg := range layout {
		if !exists[pkg] {
			t.Errorf("the table has a layer for %s, which does not exist", pkg)
		}
	}
}

func TestImportsGoOneWay(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			for _, p := range list(t, v) {
				checkLayers(t, p)
			}
		})
	}
}

func checkLayers(t *testing.T, p listed) {
	t.Helper()
	pkg, _ := rel(p.ImportPath)
	from, ok := layerOf(pkg)
	if !ok {
		return // TestEveryPackageIsInTheLayout says so
	}
	for _, imp := range p.Imports {
		dep, own := rel(imp)
		if !own {
			continue
		}
		if to, ok := layerOf(dep); ok && to > from {
			t.Errorf("%s (%v) imports %s (%v): imports go from higher layers to lower ones", pkg, from, dep, to)
		}
	}
}

func TestBans(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			for _, p := range list(t, v) {
				pkg, _ := rel(p.ImportPath)
				if l, _ := layerOf(pkg); l == outside {
					continue
				}
				for _, b := range bans {
					checkBan(t, b, pkg, p)
				}
			}
		})
	}
}

// checkBan looks at what p imports itself for packages of others (they import each other as they like),
// and at everything p depends on for our own.
func checkBan(t *testing.T, b ban, pkg string, p listed) {
	t.Helper()
	if !matchAny(b.from, pkg) || matchAny(b.except, pkg) {
		return
	}
	for _, dep := range p.Deps {
		name, own := rel(dep)
		if own && matchAny(b.to, name) {
			t.Errorf("%s depends on %s: %s", pkg, name, b.reason)
		}
	}
	for _, imp := range p.Imports {
		if _, own := rel(imp); !own && matchAny(b.to, imp) {
			t.Errorf("%s imports %s: %s", pkg, imp, b.reason)
		}
	}
}

// TestTableNamesOnlyOurs keeps typing errors out of the table: a ban on a misspelt package forbids nothing.
func TestTableNamesOnlyOurs(t *testing.T) {
	for _, b := range bans {
		for _, name := range slices.Concat(b.from, b.except) {
			if !named(name) {
				t.Errorf("ban %q names %s, which the layout does not have", b.reason, name)
			}
		}
	}
}

func named(pattern string) bool {
	base := strings.TrimSuffix(strings.TrimSuffix(pattern, "..."), "/")
	if base == "" || slices.Contains(outsideRoots, base) {
		return true
	}
	for pkg := range layout {
		if match(pattern, pkg) {
			return true
		}
	}
	return false
}

func TestEveryPackageHasADoc(t *testing.T) {
	doc := map[string]bool{}
	for _, f := range sources(t) {
		dir := path.Dir(f.path)
		doc[dir] = doc[dir] || f.ast.Doc.Text() != ""
	}
	for dir, ok := range doc {
		if !ok {
			t.Errorf("package %s has no package comment: say what it does, what it owns, who calls it", dir)
		}
	}
}

func TestFences(t *testing.T) {
	for _, f := range sources(t) {
		for _, imp := range f.ast.Imports {
			name, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if why := fenced(f.path, name); why != "" {
				t.Errorf("%v: imports %s: %s", f.fset.Position(imp.Pos()), name, why)
			}
		}
	}
}

// fenced says why a file may not import a package, or nothing.
func fenced(file, imp string) string {
	inSys := strings.HasPrefix(file, "internal/sys/")
	base := strings.TrimSuffix(strings.TrimSuffix(file, ".go"), "_test")
	switch {
	case imp == "golang.org/x/sys/unix" && !inSys:
		return "internal/sys is the one door to raw system calls"
	case imp == "unsafe" && !inSys && !strings.HasSuffix(base, "_unsafe"):
		return "unsafe lives in internal/sys and in files named *_unsafe.go"
	}
	return ""
}

func TestFencedKnowsItsFiles(t *testing.T) {
	for _, c := range []struct {
		file, imp string
		allowed   bool
	}{
		{"internal/sys/tun.go", "golang.org/x/sys/unix", true},
		{"tap/tun/tun.go", "golang.org/x/sys/unix", false},
		{"test/bed/bed.go", "golang.org/x/sys/unix", false},
		{"internal/sys/tun.go", "unsafe", true},
		{"ring/arena_unsafe.go", "unsafe", true},
		{"ring/arena_unsafe_test.go", "unsafe", true},
		{"ring/arena.go", "unsafe", false},
		{"ring/unsafe.go", "unsafe", false},
		{"ring/arena.go", "fmt", true},
	} {
		if got := fenced(c.file, c.imp) == ""; got != c.allowed {
			t.Errorf("fenced(%s, %s): allowed %v, want %v", c.file, c.imp, got, c.allowed)
		}
	}
}

// exits are the calls that end a process from anywhere in the code.
var exits = map[string][]string{
	"os":      {"Exit"},
	"syscall": {"Exit"},
	"log":     {"Fatal", "Fatalf", "Fatalln"},
}

func TestOnlyProgramsExit(t *testing.T) {
	for _, f := range sources(t) {
		// A test's TestMain may end a copy of itself that it started as a helper.
		if f.ast.Name.Name == "main" || strings.HasSuffix(f.path, "_test.go") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && isExit(sel) {
				t.Errorf("%v: ends the process: only a program's main does, so that deferred work is done",
					f.fset.Position(n.Pos()))
			}
			return true
		})
	}
}

func isExit(sel *ast.SelectorExpr) bool {
	x, ok := sel.X.(*ast.Ident)
	return ok && slices.Contains(exits[x.Name], sel.Sel.Name)
}
