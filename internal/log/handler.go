package log

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// textHandler writes "message key=value …".
type textHandler struct {
	c *core
	// attrs is the text of attributes given to WithAttrs.
	attrs []byte
	// prefix precedes keys: the open groups, each followed by a dot.
	prefix string
}

func (h *textHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.c.level }

func (h *textHandler) Handle(_ context.Context, r slog.Record) error {
	c := h.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.body.Reset()
	b := appendClean(c.body.AvailableBuffer(), r.Message)
	b = append(b, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		b = appendAttr(b, h.prefix, a)
		return true
	})
	c.body.Write(b)
	c.emit(r.Time, r.Level)
	return nil
}

func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := &textHandler{c: h.c, attrs: slices.Clone(h.attrs), prefix: h.prefix}
	for _, a := range attrs {
		n.attrs = appendAttr(n.attrs, h.prefix, a)
	}
	return n
}

func (h *textHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &textHandler{c: h.c, attrs: h.attrs, prefix: h.prefix + name + "."}
}

// appendAttr appends " key=value"; a group's keys are prefixed by its name.
func appendAttr(b []byte, prefix string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, sub := range v.Group() {
			b = appendAttr(b, prefix, sub)
		}
		return b
	}
	if a.Key == "" {
		return b
	}
	b = append(b, ' ')
	b = appendClean(b, prefix+a.Key)
	b = append(b, '=')
	return appendValue(b, v.String())
}

// appendValue appends s, quoted unless it is one word.
func appendValue(b []byte, s string) []byte {
	plain := s != ""
	for _, r := range s {
		if r <= ' ' || r == '"' || r == '=' || r == utf8.RuneError || !unicode.IsPrint(r) {
			plain = false
			break
		}
	}
	if plain {
		return append(b, s...)
	}
	return strconv.AppendQuote(b, s)
}

// appendClean appends s, with what could forge a line or control a terminal
// escaped.
func appendClean(b []byte, s string) []byte {
	for _, r := range s {
		if r != utf8.RuneError && unicode.IsPrint(r) {
			b = utf8.AppendRune(b, r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		b = append(b, quoted[1:len(quoted)-1]...)
	}
	return b
}

// appendElapsed appends seconds with four decimals and a colon.
func appendElapsed(b []byte, d time.Duration) []byte {
	b = strconv.AppendFloat(b, d.Seconds(), 'f', 4, 64)
	return append(b, ": "...)
}

// jsonHandler writes one object per record; enc writes into the core's body.
type jsonHandler struct {
	c   *core
	enc slog.Handler
}

// jsonOptions lets all levels pass, since core has the threshold, and names them
// as we do. Time is UTC, since the zone file may be out of reach.
func jsonOptions() *slog.HandlerOptions {
	return &slog.HandlerOptions{
		Level: slog.Level(-1 << 30),
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) > 0 {
				return a
			}
			if l, ok := a.Value.Any().(slog.Level); ok && a.Key == slog.LevelKey {
				a.Value = slog.StringValue(levelName(l))
			}
			if a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
				a.Value = slog.TimeValue(a.Value.Time().UTC())
			}
			return a
		},
	}
}

func (h *jsonHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.c.level }

func (h *jsonHandler) Handle(ctx context.Context, r slog.Record) error {
	c := h.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.body.Reset()
	if err := h.enc.Handle(ctx, r); err != nil {
		return err
	}
	c.emit(r.Time, r.Level)
	return nil
}

func (h *jsonHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &jsonHandler{c: h.c, enc: h.enc.WithAttrs(attrs)}
}

func (h *jsonHandler) WithGroup(name string) slog.Handler {
	return &jsonHandler{c: h.c, enc: h.enc.WithGroup(name)}
}
