package conf

import (
	"fmt"
	"strings"
)

// optionTable finds options as getopt_long(3) does.
type optionTable struct {
	opts  []option
	long  map[string]*option
	short map[byte]*option
}

func newOptionTable(opts []option) *optionTable {
	t := &optionTable{
		opts:  opts,
		long:  make(map[string]*option, len(opts)),
		short: make(map[byte]*option, len(opts)),
	}
	for i := range opts {
		o := &opts[i]
		t.long[o.long] = o
		if o.short != "" {
			t.short[o.short[0]] = o
		}
	}
	return t
}

// line is a command line in canonical form: each option spelled "--name" or
// "--name=value", and the operands.
type line struct {
	options  []string
	operands []string
	// typed holds, for each of options, how the user spelled it: "-t" or
	// "--tcp-ports".
	typed []string
	// action is Run unless an option asks for printing; what follows such
	// an option is ignored.
	action Action
}

// lexer splits a command line by the rules of getopt_long(3) with a leading
// '+': abbreviated long options, clustered short ones, attached values, and
// an end at the first operand or "--".
type lexer struct {
	table   *optionTable
	program string
	args    []string
	out     line
}

func (t *optionTable) lex(program string, args []string) (line, error) {
	l := lexer{table: t, program: program, args: args}
	for len(l.args) > 0 && l.out.action == Run {
		arg := l.args[0]
		if arg == "--" {
			l.args = l.args[1:]
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			break
		}
		l.args = l.args[1:]
		var err error
		if strings.HasPrefix(arg, "--") {
			err = l.longOption(arg[2:])
		} else {
			err = l.cluster(arg[1:])
		}
		if err != nil {
			return line{}, err
		}
	}
	l.out.operands = l.args
	return l.out, nil
}

// longOption parses one "--text".
func (l *lexer) longOption(text string) error {
	name, value, attached := strings.Cut(text, "=")
	o, err := l.find(name, text)
	if err != nil {
		return err
	}
	switch {
	case o.arg == "" && attached:
		return l.usagef("option '--%s' doesn't allow an argument", o.long)
	case o.arg == "" || attached:
		l.add(o, "--"+o.long, value)
		return nil
	case len(l.args) == 0:
		return l.usagef("option '--%s' requires an argument", o.long)
	}
	l.add(o, "--"+o.long, l.next())
	return nil
}

// find resolves a possibly abbreviated name; text is what to show.
func (l *lexer) find(name, text string) (*option, error) {
	if o, ok := l.table.long[name]; ok {
		return o, nil
	}
	var found []*option
	for i := range l.table.opts {
		o := &l.table.opts[i]
		again := len(found) == 1 && o.alias == found[0].long
		if strings.HasPrefix(o.long, name) && !again {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 0:
		return nil, l.usagef("unrecognized option '--%s'", text)
	case 1:
		return found[0], nil
	}
	var names strings.Builder
	for _, o := range found {
		names.WriteString(" '--" + o.long + "'")
	}
	return nil, l.usagef("option '--%s' is ambiguous; possibilities:%s", text, names.String())
}

// cluster parses one "-abc"; the first option with an argument takes the rest, or
// if nothing is left the next argument.
func (l *lexer) cluster(text string) error {
	for i := 0; i < len(text) && l.out.action == Run; i++ {
		o, ok := l.table.short[text[i]]
		rest := text[i+1:]
		switch {
		case !ok:
			return l.usagef("invalid option -- '%c'", text[i])
		case o.arg == "":
			l.add(o, "-"+o.short, "")
			continue
		case rest != "":
			l.add(o, "-"+o.short, rest)
		case len(l.args) == 0:
			return l.usagef("option requires an argument -- '%c'", text[i])
		default:
			l.add(o, "-"+o.short, l.next())
		}
		return nil
	}
	return nil
}

// next consumes the following argument as a value.
func (l *lexer) next() string {
	v := l.args[0]
	l.args = l.args[1:]
	return v
}

// add records an option. The value "--version" asks for the version: callers
// probe for an option with "--OPTION --version" without knowing whether it takes
// a value, and no option of ours can have that value.
func (l *lexer) add(o *option, typed, value string) {
	switch {
	case o.action != Run:
		l.out.action = o.action
		return
	case o.arg != "" && value == "--version":
		l.out.action = PrintVersion
		return
	}
	text := "--" + o.long
	if o.arg != "" {
		text += "=" + value
	}
	l.out.options = append(l.out.options, text)
	l.out.typed = append(l.out.typed, typed)
}

// usagef makes an error in the words of getopt_long(3), to be followed by the
// usage text.
func (l *lexer) usagef(format string, args ...any) error {
	return &Error{Text: l.program + ": " + fmt.Sprintf(format, args...), Usage: true}
}
