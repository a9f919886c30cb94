package conf

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/pflag"
)

// ownName is the program's name if argv[0] does not select a mode.
const ownName = "penne"

// parser collects the options of a command line.
type parser struct {
	c Config

	debug, trace, quiet          bool
	noMapGW                      bool
	noDHCPDNS, noDHCPSearch      bool
	cidr4, mask4                 int // bits, 0 if not given
	descriptor                   int
	tcpIn, udpIn, tcpOut, udpOut portList
	// typed is how the current option was spelled.
	typed string
}

// Parse reads a command line, argv[0] included. The error, if any, is an
// [*Error], and the Config then holds Program and Mode only.
func Parse(argv []string) (*Config, error) {
	program, mode, args := personality(argv)
	p := newParser(program, mode)
	if err := p.parse(args); err != nil {
		return &Config{Program: program, Mode: mode}, err
	}
	return &p.c, nil
}

func newParser(program string, mode Mode) *parser {
	p := &parser{c: Config{Program: program, Mode: mode}}
	p.c.Logging.Size = DefaultLogSize
	p.c.Net.MTU = DefaultMTU
	p.c.Net.MAC = DefaultMAC
	return p
}

// personality selects the mode by argv[0], else by the first argument, else pasta,
// and returns the remaining arguments.
func personality(argv []string) (program string, mode Mode, args []string) {
	program = ownName
	if len(argv) > 0 {
		if base := path.Base(argv[0]); argv[0] != "" && base != "/" && base != "." {
			program = base
		}
		args = argv[1:]
	}
	if mode, ok := modeByName(program); ok {
		return program, mode, args
	}
	if len(args) > 0 && (args[0] == ModePasta.String() || args[0] == ModePasst.String()) {
		mode, _ := modeByName(args[0])
		return args[0], mode, args[1:]
	}
	return program, ModePasta, args
}

func modeByName(name string) (Mode, bool) {
	switch {
	case strings.HasPrefix(name, ModePasta.String()):
		return ModePasta, true
	case strings.HasPrefix(name, ModePasst.String()):
		return ModePasst, true
	}
	return ModePasta, false
}

func (p *parser) parse(args []string) error {
	opts := p.options()
	l, err := newOptionTable(opts).lex(p.c.Program, args)
	if err != nil {
		return err
	}
	if err := p.apply(opts, l); err != nil {
		return err
	}
	if l.action != Run {
		p.c.Action = l.action
		return nil
	}
	return p.finish(l.operands)
}

// apply stores the options of a canonical line, in order.
func (p *parser) apply(opts []option, l line) error {
	fs := pflag.NewFlagSet(p.c.Program, pflag.ContinueOnError)
	fs.SortFlags = false
	next := 0
	for i := range opts {
		v := &value{p: p, o: &opts[i], l: &l, next: &next}
		f := fs.VarPF(v, opts[i].long, opts[i].short, opts[i].help)
		if opts[i].arg == "" {
			f.NoOptDefVal = "true"
		}
	}
	err := fs.Parse(l.options)
	var own *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own
	}
	return p.fail("%v", err)
}

// value adapts an option to pflag.
type value struct {
	p    *parser
	o    *option
	l    *line
	next *int // index into l.typed
}

// Set stores one occurrence; pflag calls it in the order of the line.
func (v *value) Set(text string) error {
	v.p.typed = v.l.typed[*v.next]
	*v.next++
	switch {
	case v.o.scope == pastaOnly && v.p.c.Mode == ModePasst:
		return v.p.fail("%s is for pasta mode only", v.p.typed)
	case v.o.scope == passtOnly && v.p.c.Mode == ModePasta:
		return v.p.fail("%s is for passt mode only", v.p.typed)
	}
	err := v.o.set(text)
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	return v.p.fail("invalid value '%s' for option '%s': %v", text, v.p.typed, err)
}

// String is called by pflag for the default value, which it must not print.
func (v *value) String() string { return "" }

// Type is the name of the argument.
func (v *value) Type() string { return v.o.arg }

// fail makes an error of one line.
func (p *parser) fail(format string, args ...any) error {
	return &Error{Text: p.c.Program + ": " + fmt.Sprintf(format, args...)}
}

// warnf adds a warning, to be logged once logging works.
func (p *parser) warnf(format string, args ...any) {
	p.c.Warnings = append(p.c.Warnings, fmt.Sprintf(format, args...))
}
