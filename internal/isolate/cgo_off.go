//go:build !cgo

package isolate

func linkedWithCgo() bool { return false }
