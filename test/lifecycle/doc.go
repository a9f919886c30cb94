// Package lifecycle tests how the shipped binary comes, lives and goes as a set
// of processes: statuses, signals, namespaces, daemons, and that nothing stays.
// Every test has a uid of its own, so that what it leaves behind is found by
// that alone, which takes root.
package lifecycle
