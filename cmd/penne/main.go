// Command penne connects network namespaces (as pasta) and virtual machines
// (as passt) to the host's network without privileges. The name it is called
// by picks the mode; see [conf.Parse]. It is one static binary, which runs as
// several processes; see package netns.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"penne/internal/conf"
	"penne/internal/engine"
	"penne/internal/netns"
)

// The main goroutine keeps the main thread, by whose state the process is
// known: no other one may move it to another namespace.
func init() { runtime.LockOSThread() }

func main() { os.Exit(run(os.Args)) }

// run returns the exit status.
func run(argv []string) int {
	if netns.IsEngine(argv) {
		return netns.RunEngine(argv, engine.Serve)
	}
	c, err := conf.Parse(argv)
	if err != nil {
		return misused(c, err)
	}
	switch c.Action {
	case conf.PrintHelp:
		fmt.Print(conf.Usage(c.Program, c.Mode))
		return 0
	case conf.PrintVersion:
		fmt.Print(conf.VersionText(c.Program))
		return 0
	case conf.PrintCapabilities:
		fmt.Print(capabilities)
		return 0
	}
	if c.Mode == conf.ModePasst {
		fmt.Fprintln(os.Stderr, c.Program+": virtual machines cannot be served yet, only namespaces: call it pasta for these")
		return 1
	}
	l := &netns.Launcher{Config: c, Argv: argv, BindPrivileged: engine.BindPrivileged, Stderr: os.Stderr}
	return l.Run()
}

// misused says what is wrong with the command line.
func misused(c *conf.Config, err error) int {
	fmt.Fprintln(os.Stderr, err)
	var e *conf.Error
	if errors.As(err, &e) && e.Usage {
		fmt.Fprint(os.Stderr, conf.Usage(c.Program, c.Mode))
	}
	return 1
}
