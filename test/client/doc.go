// Package client holds the clients that tests and measurements run inside a namespace, as tools of package bed:
// TCP and UDP programs that report exactly what happened to them, system call errors included. Importing it
// registers them; Session.Tool runs them and decodes an Outcome.
package client
