// Package scenario has the rows of the measurement: what is run for each peer, what figures come out, and what
// targets they have. Runner measures rows in one bed, alternating between peers within each round, so that a
// slow minute of the machine falls on all of them.
package scenario
