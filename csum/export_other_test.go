//go:build purego || !(amd64 || arm64)

package csum

// implementations lists all code there is for this architecture.
var implementations = []implementation{
	{name: "generic", min: 0, ok: true, sum: sumGeneric},
}
