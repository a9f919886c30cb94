package conf

import (
	"fmt"
	"strings"
)

// Version is the release's number; the build sets it by
// -ldflags "-X penne/internal/conf.Version=…".
var Version = "0.1.0-dev"

// VersionText is what --version prints. Container engines show it unchanged, and
// scripts take its second word for the version.
func VersionText(program string) string {
	return fmt.Sprintf("%s %s (%s)\n"+
		"Licence: Apache License 2.0 <https://www.apache.org/licenses/LICENSE-2.0>\n"+
		"This is free software, without any warranty.\n", program, Version, ownName)
}

// usageColumn is where the help of an option starts, usageIndent where its
// long name does.
const (
	usageColumn = 30
	usageIndent = "      "
)

// Usage is what --help prints: every option of the mode.
func Usage(program string, mode Mode) string {
	var b strings.Builder
	b.WriteString(synopsis(program, mode))
	opts := newParser(program, mode).options()
	for g := range groupCount {
		title := groupTitles[g]
		for i := range opts {
			if opts[i].group != g || !opts[i].scope.covers(mode) {
				continue
			}
			if title != "" {
				fmt.Fprintf(&b, "\n%s:\n", title)
				title = ""
			}
			writeOption(&b, &opts[i])
		}
	}
	b.WriteString(portHelp)
	return b.String()
}

func (s scope) covers(mode Mode) bool {
	return s == both || (s == pastaOnly) == (mode == ModePasta)
}

func synopsis(program string, mode Mode) string {
	if mode == ModePasst {
		return "Usage: " + program + " [OPTION]...\n\n" +
			"Connects a virtual machine to the host's network, without privileges.\n"
	}
	return "Usage: " + program + " [OPTION]... [COMMAND [ARG]...]\n" +
		"       " + program + " [OPTION]... PID\n" +
		"       " + program + " [OPTION]... --netns PATH|NAME\n\n" +
		"Connects a network namespace to the host's network, without privileges.\n" +
		"Without PID and --netns, new namespaces are made for COMMAND, or for a shell.\n"
}

// writeOption writes one entry.
func writeOption(b *strings.Builder, o *option) {
	head := usageIndent
	if o.short != "" {
		head = "  -" + o.short + ", "
	}
	head += "--" + o.long
	if o.arg != "" {
		head += " " + o.arg
	}
	for i, text := range strings.Split(o.help, "\n") {
		switch {
		case i > 0:
			head = ""
		case len(head) >= usageColumn:
			b.WriteString(head + "\n")
			head = ""
		}
		fmt.Fprintf(b, "%-*s%s\n", usageColumn, head, text)
	}
}

// portHelp explains SPEC.
const portHelp = `
SPEC is none, or a list of these, apart by commas:
  auto                 the ports bound on the other side (pasta)
  all[:ADDR]           all free ports that are not ephemeral
  22, 22-80            ports
  22:23, 22-80:32-90   ports, to other ports of the other side
  22:192.0.2.7/23      a port, to another address and port
  ~25, ~20000-20010    ports to leave out; alone: all but these
In front of the list, ADDR/, ADDR%IFACE/ or %IFACE/ tells where to listen.
`
