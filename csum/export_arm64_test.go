//go:build !purego

package csum

// implementations lists all code there is for this architecture, so that dispatch cannot hide any
// of it from the tests.
var implementations = []implementation{
	{name: "generic", min: 0, ok: true, sum: sumGeneric},
	{name: "NEON", min: 16, ok: true, sum: sumNEON},
}
