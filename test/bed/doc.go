// Package bed builds the two-namespace world in which penne is tested and measured, as root, in process:
//
//	host    198.51.100.2/24, 2001:db8:1::2/64, default routes through remote
//	remote  198.51.100.3 and ::3 for servers, 198.51.100.1 and ::1 as the gateway
//
// joined by a veth pair, or by a relay that adds delay and loss. pasta runs in host as an unprivileged user
// without an account (UID), from a world-readable temporary directory that holds copies of the binaries, as
// a checkout may lie under a directory that only root enters. Servers run in remote.
//
// Namespaces have no name: each is held by one thread of this process, so that they go with the process
// however it ends. Child processes carry a parent-death signal and a mark in their environment; New removes
// what a killed run still left (a temporary directory, a process that outlived its parent).
//
// A program that uses bed calls RunAgent first thing in main or TestMain: copies of its binary serve inside
// the namespaces as agents, which run commands, and as tools (see Tool).
package bed
