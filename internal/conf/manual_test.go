package conf

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestManual checks that the manual page and the option table name the same
// options, and agree on the short ones.
func TestManual(t *testing.T) {
	data, err := os.ReadFile("../../doc/man/penne.1")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(data), `\-`, "-")
	known := map[string]bool{}
	for _, o := range newParser("pasta", ModePasta).options() {
		known[o.long] = true
		if !regexp.MustCompile(`(?m)^\..*--` + o.long + `(?:[^-\w]|$)`).MatchString(page) {
			t.Errorf("--%s is not in the manual", o.long)
		}
		if o.short != "" && !strings.Contains(page, `-`+o.short+` ", " --`+o.long) {
			t.Errorf("-%s is not beside --%s in the manual", o.short, o.long)
		}
	}
	for _, m := range regexp.MustCompile(`--([a-z][a-z0-9-]*)`).FindAllStringSubmatch(page, -1) {
		if !known[m[1]] {
			t.Errorf("the manual names --%s, which is no option", m[1])
		}
	}
}
