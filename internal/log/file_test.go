package log

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// DefaultTestLimit is the size limit where a test does not care.
const DefaultTestLimit = 1 << 20

// openTemp opens a log file in a temporary directory, holding content.
func openTemp(t *testing.T, content string, limit int64) (*File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := OpenFile(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w, path
}

func readAll(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestFileTrim writes far more than fits, in lines of any length, and checks
// after each that the file holds the latest lines, whole, within the limit.
func TestFileTrim(t *testing.T) {
	for _, limit := range []int64{MinFileSize, MinFileSize + 1, 3*copySize + 5} {
		w, path := openTemp(t, "", limit)
		rnd := rand.New(rand.NewPCG(1, uint64(limit)))
		var all strings.Builder
		for i := range int(limit/20) + 200 {
			line := fmt.Sprintf("%d %s\n", i, strings.Repeat("x", rnd.IntN(200)))
			all.WriteString(line)
			if err := w.append([]byte(line)); err != nil {
				t.Fatal(err)
			}
			if i%16 != 0 {
				continue
			}
			got := readAll(t, path)
			if int64(len(got)) > limit || int64(len(got)) != w.size {
				t.Fatalf("limit %d, line %d: %d bytes, size %d", limit, i, len(got), w.size)
			}
			whole := all.String()
			start := len(whole) - len(got)
			if !strings.HasSuffix(whole, got) || start > 0 && whole[start-1] != '\n' {
				t.Fatalf("limit %d, line %d: not the latest lines, whole: %.40q…", limit, i, got)
			}
			if all.Len() > int(limit) && len(got) < int(limit/2) {
				t.Fatalf("limit %d, line %d: only %d bytes kept", limit, i, len(got))
			}
		}
		if all.Len() < 3*int(limit) {
			t.Fatalf("limit %d: %d bytes written are too few to prove anything", limit, all.Len())
		}
	}
}

// TestFileTrimBorder checks the cut against lines that end right before, at
// and behind it.
func TestFileTrimBorder(t *testing.T) {
	const quarter = MinFileSize / 4
	for _, first := range []int{quarter - 1, quarter, quarter + 1, quarter / 2, 2 * quarter} {
		head := strings.Repeat("a", first-1) + "\n"
		tail := strings.Repeat("b", MinFileSize-first-1) + "\n"
		w, path := openTemp(t, head+tail, MinFileSize)
		if err := w.append([]byte("c\n")); err != nil {
			t.Fatal(err)
		}
		want := tail + "c\n"
		if first < quarter {
			want = "c\n" // the cut falls into the tail, which is one line
		}
		if got := readAll(t, path); got != want {
			t.Errorf("first line of %d bytes: kept %d bytes, want %d", first, len(got), len(want))
		}
	}
}

// TestFileReopen checks that earlier lines stay, as far as the limit allows.
func TestFileReopen(t *testing.T) {
	w, path := openTemp(t, "old\n", MinFileSize)
	if err := w.append([]byte("new\n")); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, path); got != "old\nnew\n" {
		t.Errorf("got %q", got)
	}
	_, path = openTemp(t, strings.Repeat("line\n", 3000), MinFileSize)
	got := readAll(t, path)
	if len(got) > MinFileSize || len(got) < MinFileSize/2 || strings.Trim(got, "line\n") != "" || !strings.HasPrefix(got, "line\n") {
		t.Errorf("kept %d bytes: %.20q", len(got), got)
	}
}

// TestFileNoNewline checks content that is no log.
func TestFileNoNewline(t *testing.T) {
	w, path := openTemp(t, strings.Repeat("x", 3*copySize), MinFileSize)
	if err := w.append([]byte("line\n")); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, path); got != "line\n" {
		t.Errorf("got %d bytes", len(got))
	}
}

// TestFileLongLine checks a line that is longer than the file may be.
func TestFileLongLine(t *testing.T) {
	w, path := openTemp(t, "", MinFileSize)
	for range 3 {
		if err := w.append(append(bytes.Repeat([]byte("x"), 2*MinFileSize), '\n')); err != nil {
			t.Fatal(err)
		}
	}
	got := readAll(t, path)
	if len(got) != MinFileSize || strings.Count(got, "\n") != 2 || got[len(got)-1] != '\n' {
		t.Errorf("%d bytes, %d lines", len(got), strings.Count(got, "\n"))
	}
}

// TestFileUnlinked checks that the descriptor is all it takes.
func TestFileUnlinked(t *testing.T) {
	w, path := openTemp(t, "", MinFileSize)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	line := []byte(strings.Repeat("x", 99) + "\n")
	for range 100 {
		if err := w.append(line); err != nil {
			t.Fatal(err)
		}
	}
	if w.size > MinFileSize || w.size < MinFileSize/2 || w.size%100 != 0 {
		t.Errorf("size %d", w.size)
	}
}

// TestFileErrors checks destinations that cannot serve.
func TestFileErrors(t *testing.T) {
	if _, err := OpenFile(filepath.Join(t.TempDir(), "no", "log"), DefaultTestLimit); err == nil {
		t.Error("a missing directory is no error")
	}
	if _, err := OpenFile(filepath.Join(t.TempDir(), "log"), MinFileSize-1); err == nil {
		t.Error("a tiny limit is no error")
	}
	full, err := OpenFile("/dev/full", MinFileSize)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if err := full.append([]byte("line\n")); err == nil || full.size != 0 {
		t.Errorf("a full disk: error %v, size %d", err, full.size)
	}
}

// TestFileShrunk checks that a file which somebody else emptied costs lines,
// never more.
func TestFileShrunk(t *testing.T) {
	w, path := openTemp(t, "", MinFileSize)
	line := []byte(strings.Repeat("x", 99) + "\n")
	for i := range 100 {
		if i == 30 {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.append(line); err != nil {
			t.Fatal(err)
		}
	}
	if got := readAll(t, path); len(got) > MinFileSize || !strings.HasSuffix(got, string(line)) {
		t.Errorf("%d bytes", len(got))
	}
}

// TestFileOfTwo has two writers of one file, as two processes are: no line of one is lost by the other's, or cut, and
// what is trimmed is trimmed for both.
func TestFileOfTwo(t *testing.T) {
	const lines = 20000
	for _, limit := range []int64{DefaultTestLimit, MinFileSize} {
		a, path := openTemp(t, "", limit)
		b, err := OpenFile(path, limit)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		var wg sync.WaitGroup
		for name, w := range map[string]*File{"a": a, "b": b} {
			wg.Go(func() {
				for i := range lines {
					if err := w.append(fmt.Appendf(nil, "%s %d\n", name, i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		last, n := map[string]int{"a": -1, "b": -1}, 0
		for line := range strings.Lines(readAll(t, path)) {
			var name string
			var i int
			if _, err := fmt.Sscanf(line, "%s %d\n", &name, &i); err != nil || last[name] >= 0 && i != last[name]+1 {
				t.Fatalf("limit %d: after line %v: %q", limit, last, line)
			}
			last[name], n = i, n+1
		}
		if max(last["a"], last["b"]) != lines-1 || limit == DefaultTestLimit && n != 2*lines {
			t.Errorf("limit %d: %d lines, the last %v", limit, n, last)
		}
	}
}

func TestFileMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w, err := OpenFile(path, MinFileSize)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}
