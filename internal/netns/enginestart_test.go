package netns

import "testing"

func TestEngineConn(t *testing.T) {
	for _, c := range []struct {
		argv []string
		fd   int
		ok   bool
	}{
		{nil, 0, false},
		{[]string{"pasta"}, 0, false},
		{[]string{"penne: engine"}, 0, false},
		{[]string{"penne: engine x"}, 0, false},
		{[]string{"penne: engine 2"}, 0, false},
		{[]string{"penne: engine 12", "pasta"}, 12, true},
	} {
		if fd, ok := engineConn(c.argv); ok != c.ok || ok && fd != c.fd {
			t.Errorf("%q: %d, %v", c.argv, fd, ok)
		}
	}
}
