package engine

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"penne/internal/stats"
)

// counts are the rows of the table, drops aside.
var counts = [...]struct {
	name string
	of   func(*stats.Counters) uint64
}{
	{"frames from guest", func(c *stats.Counters) uint64 { return c.TapRxFrames }},
	{"bytes from guest", func(c *stats.Counters) uint64 { return c.TapRxBytes }},
	{"frames to guest", func(c *stats.Counters) uint64 { return c.TapTxFrames }},
	{"bytes to guest", func(c *stats.Counters) uint64 { return c.TapTxBytes }},
	{"TCP flows", func(c *stats.Counters) uint64 { return c.TCPFlows }},
	{"TCP opened", func(c *stats.Counters) uint64 { return c.TCPOpened }},
	{"TCP closed", func(c *stats.Counters) uint64 { return c.TCPClosed }},
	{"TCP reset", func(c *stats.Counters) uint64 { return c.TCPReset }},
	{"TCP retransmits", func(c *stats.Counters) uint64 { return c.TCPRetransmits }},
	{"TCP frames kept", func(c *stats.Counters) uint64 { return c.TCPTailFrames }},
	{"spliced", func(c *stats.Counters) uint64 { return c.Spliced }},
	{"bytes spliced", func(c *stats.Counters) uint64 { return c.SplicedBytes }},
	{"UDP flows", func(c *stats.Counters) uint64 { return c.UDPFlows }},
	{"UDP opened", func(c *stats.Counters) uint64 { return c.UDPOpened }},
	{"UDP closed", func(c *stats.Counters) uint64 { return c.UDPClosed }},
	{"UDP to host", func(c *stats.Counters) uint64 { return c.UDPToHost }},
	{"UDP to guest", func(c *stats.Counters) uint64 { return c.UDPToGuest }},
	{"ping flows", func(c *stats.Counters) uint64 { return c.PingFlows }},
	{"pings opened", func(c *stats.Counters) uint64 { return c.PingOpened }},
	{"pings closed", func(c *stats.Counters) uint64 { return c.PingClosed }},
	{"handed out", func(c *stats.Counters) uint64 { return c.HandedOut }},
	{"handed in", func(c *stats.Counters) uint64 { return c.HandedIn }},
	{"wake-ups", func(c *stats.Counters) uint64 { return c.Wakeups }},
}

// table shows what shards counted since the start, a column each behind the
// total; rows without any count are left out.
func table(shards []stats.Counters) []string {
	var total stats.Counters
	for i := range shards {
		total.Add(&shards[i])
	}
	columns := append([]stats.Counters{total}, shards...)
	if len(shards) == 1 {
		columns = shards
	}
	lines := []string{head(len(columns))}
	row := func(name string, of func(*stats.Counters) uint64) {
		if of(&total) == 0 {
			return
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%-24s", name)
		for i := range columns {
			fmt.Fprintf(&b, "%16d", of(&columns[i]))
		}
		lines = append(lines, b.String())
	}
	for _, c := range counts {
		row(c.name, c.of)
	}
	for r := range stats.NumReasons {
		row("dropped: "+r.String(), func(c *stats.Counters) uint64 { return c.Drops[r] })
	}
	return lines
}

func head(columns int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-24s%16s", "", "total")
	for i := range columns - 1 {
		fmt.Fprintf(&b, "%16s", fmt.Sprintf("shard %d", i))
	}
	return b.String()
}

// printStats prints the table on standard error (--stats), if anything has
// moved since the last time: the shards need not wake up to tell that.
func (e *engine) printStats() {
	now := e.group.LastActive()
	if now == e.shown {
		return
	}
	e.shown = now
	text := fmt.Sprintf("after %v\n%s\n", time.Since(e.began).Round(time.Millisecond), strings.Join(table(e.group.Stats()), "\n"))
	_, _ = os.Stderr.WriteString(text) // nobody may be there to read it
}

// logStats logs the table, whatever the level: somebody asked for it, by a
// signal.
func (e *engine) logStats() {
	lowest := max(level(e.conf.Logging.Verbosity), slog.LevelInfo)
	for _, line := range table(e.group.Stats()) {
		e.log.Log(context.Background(), lowest, line)
	}
}
