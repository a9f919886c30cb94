// Package load holds the generators for what standard tools do not measure: datagrams delivered a second, with
// and without segmentation offload in the sender and coalescing in the receiver. They run on both sides: in
// this process for the remote end, and as tools of package bed inside the namespace. Importing it registers
// the tools.
package load
