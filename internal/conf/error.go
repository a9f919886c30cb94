package conf

// Error says what is wrong with a command line.
type Error struct {
	// Text is a line for standard error, without the newline. It starts
	// with the program's name where getopt_long(3) would put it.
	Text string
	// Usage asks for the usage text after it.
	Usage bool
}

// Error returns Text.
func (e *Error) Error() string { return e.Text }
