package conf

// Error says what is wrong with a command line.
type Error struct {
	// Text is a whole line for standard error, without a newline. It
	// starts with the program's name where getopt_long would put it.
	Text string
	// Usage asks for the usage text behind it.
	Usage bool
}

// Error returns Text.
func (e *Error) Error() string { return e.Text }
