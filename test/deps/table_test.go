// Package deps holds the architecture's import directions against the code: one table of layers, a few
// named bans with their reasons, and the fences around raw system calls, unsafe and os.Exit. It has tests
// only; what it reads is `go list` for each build variant, and every Go file of the module.
package deps

// layer is a rank in the one-way order of imports: a package may import packages of its own rank and of
// lower ranks, never of higher ones.
type layer int

const (
	leaf       layer = iota // knows nothing of the product
	word                    // the vocabulary of the data path: views, frames, tables
	rim                     // back-ends and responders: where bytes enter and leave
	translator              // TCP and UDP between frames and sockets
	worker                  // the shard, which calls all of the above
	control                 // configuration and process life, off the packet path
	program                 // cmd: the composition
	outside                 // tests and measurements: may use anything, used by nothing
)

var layerNames = [...]string{"leaf", "word", "rim", "translator", "worker", "control", "program", "outside"}

func (l layer) String() string { return layerNames[l] }

// layout is every package of the module and its layer. A package that is not named here fails the test:
// it either belongs elsewhere, or the architecture has grown and this table says so. So does a row without a package.
var layout = map[string]layer{
	"csum":           leaf,
	"internal/log":   leaf,
	"internal/stats": leaf,
	"internal/sys":   leaf,
	"shard/wheel":    leaf,

	"internal/fwd":  word,
	"shard/env":     word,
	"internal/wire": word,
	"ring":          word,
	"shard/flow":    word,
	"tap/vnet":      word,

	"internal/arp":   rim,
	"internal/dhcp":  rim,
	"internal/dhcp6": rim,
	"internal/icmp":  rim,
	"internal/ndp":   rim,
	"internal/nl":    rim,
	"internal/pcap":  rim,
	"shard/steer":    rim,
	"tap":            rim,
	"tap/tun":        rim,

	"tcpx":        translator,
	"tcpx/splice": translator,
	"udpx":        translator,
	"udpx/ping":   translator,
	"udpx/relay":  translator,

	"shard": worker,

	"internal/conf":     control,
	"internal/engine":   control,
	"internal/isolate":  control,
	"internal/netns":    control,
	"internal/portscan": control,

	"cmd/penne": program,
}

// outsideRoots are the folders whose packages all have the layer outside.
var outsideRoots = []string{"test", "perf"}

// A ban forbids a dependency, direct or through others, that the layers alone would allow.
type ban struct {
	from   []string // packages; "x/..." is x and all below it
	to     []string // packages of this module, or import paths of others
	except []string // of from
	reason string
}

var bans = []ban{
	{
		from:   []string{"tcpx/...", "udpx/..."},
		to:     []string{"tap", "tap/tun"},
		reason: "translators fill a batch; only the shard knows which back-end sends it",
	},
	{
		from:   []string{"internal/arp", "internal/ndp", "internal/dhcp", "internal/dhcp6"},
		to:     []string{"tap", "tap/tun", "internal/nl"},
		reason: "responders turn bytes into bytes; they own no device",
	},
	{
		from:   []string{"tap/...", "tcpx/...", "udpx/...", "ring/...", "csum", "shard/..."},
		to:     []string{"github.com/vishvananda/netlink", "github.com/vishvananda/netns"},
		reason: "the data path does not configure the system; netlink is internal/nl's and the control packages'",
	},
	{
		from:   []string{"..."},
		to:     []string{"github.com/spf13/pflag"},
		except: []string{"internal/conf", "cmd/penne", "perf/...", "test/..."},
		reason: "options become plain structs in internal/conf",
	},
	{
		from:   []string{"..."},
		to:     []string{"github.com/cilium/ebpf"},
		except: []string{"shard/steer", "shard", "cmd/penne", "perf/...", "test/..."},
		reason: "steering programs are loaded by shard/steer",
	},
	{
		from:   []string{"..."},
		to:     []string{"github.com/elastic/go-seccomp-bpf"},
		except: []string{"internal/isolate", "cmd/penne", "perf/...", "test/..."},
		reason: "the system call filter is internal/isolate's",
	},
	{
		from:   []string{"..."},
		to:     []string{"github.com/gopacket/gopacket", "github.com/insomniacslk/dhcp", "github.com/mdlayher/ndp"},
		except: []string{"perf/...", "test/..."},
		reason: "decoders of others check ours in tests; the product reads guest bytes with its own views",
	},
	{
		from:   []string{"..."},
		to:     []string{"testing", "net/http", "log", "expvar"},
		except: []string{"perf/...", "test/..."},
		reason: "the product has no global logger, serves no HTTP, and ships no test doubles",
	},
	{
		from:   []string{"csum", "ring/...", "shard/...", "tap/...", "tcpx/...", "udpx/..."},
		to:     []string{"log/slog", "encoding/json", "os/exec", "reflect"},
		reason: "the data path counts; the control thread speaks",
	},
	{
		from:   []string{"cmd/penne", "csum", "internal/...", "ring/...", "shard/...", "tap/...", "tcpx/...", "udpx/..."},
		to:     []string{"C", "runtime/cgo"},
		reason: "one static binary: CGO_ENABLED=0",
	},
}
