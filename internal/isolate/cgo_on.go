//go:build cgo

package isolate

import "penne/internal/sys"

// linkedWithCgo has to try, since cgo may be on and no package use it.
func linkedWithCgo() bool { return !sys.AllThreads() }
