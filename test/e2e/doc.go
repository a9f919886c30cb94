// Package e2e drives bin/pasta from outside, as its users do: real namespaces, real clients (curl, ping,
// iperf3, socat, dig), an unprivileged user. PENNE_PASTA names another binary to test, upstream's included:
// what is asserted is documented behaviour.
//
// The tests need root to build their bed (package bed) and skip without.
package e2e
