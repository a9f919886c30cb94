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

// rows are the rows of the table, without drops.
var rows = [...]struct {
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

// table formats the counters of all shards since the start: a column for the total,
// then one per shard. Rows of zeros are left out.
func table(shards []stats.Counters) []string {
	var total stats.Counters
	for i := range shards {
		total.Add(&shards[i])
	}
	columns := append([]stats.Counters{total}, shards...)
	if len(shards) == 1 {
		columns = shards
	}
	lines := []string{tableHead(len(columns))}
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
	for _, c := range rows {
		row(c.name, c.of)
	}
	for r := range stats.NumReasons {
		row("dropped: "+r.String(), func(c *stats.Counters) uint64 { return c.Drops[r] })
	}
	return lines
}

func tableHead(columns int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-24s%16s", "", "total")
	for i := range columns - 1 {
		fmt.Fprintf(&b, "%16s", fmt.Sprintf("shard %d", i))
	}
	return b.String()
}

// printStats prints the table to standard error (--stats), unless there was no
// activity since the last time, which can be seen without waking the shards.
func (e *engine) printStats() {
	now := e.group.LastActive()
	if now == e.shownActivity {
		return
	}
	e.shownActivity = now
	text := fmt.Sprintf("after %v\n%s\n", time.Since(e.started).Round(time.Millisecond), strings.Join(table(e.group.Stats()), "\n"))
	_, _ = os.Stderr.WriteString(text) // the reader may have gone
}

// logStats logs the table, whatever the level, since a signal has asked for it.
func (e *engine) logStats() {
	lowest := max(slogLevel(e.conf.Logging.Verbosity), slog.LevelInfo)
	for _, line := range table(e.group.Stats()) {
		e.log.Log(context.Background(), lowest, line)
	}
}
