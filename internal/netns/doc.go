// Package netns is the life cycle of the program: its stages, the namespaces
// they live in, the command, signals, and the end.
//
// One static binary runs as up to three processes:
//
//   - The launcher is what the user started. It stays in the caller's
//     namespaces, checks, prepares, starts the others and waits: until the
//     engine is ready (then it ends with status 0, and the engine is the
//     daemon), or, in the foreground and for a command, until they end.
//   - The holder is process 1 of the namespaces made for a command. It is a
//     clone of the launcher which never runs Go code again, but a script of
//     system calls (see [sys.Script]): it mounts /proc, waits for the network,
//     starts the command, reaps orphans, and ends as the command does. Where
//     the user namespace is a given one, a helper joins that and clones it.
//   - The engine forwards. It is the same binary, executed again inside the
//     user namespace to be served but in the host's network namespace, with
//     mount, PID, IPC and UTS namespaces of its own.
//
// Launcher and holder, and launcher and engine, are joined by a pair of
// sockets. An end of file on it means that the other one has ended, however
// that came about: the engine ends with the launcher unless it was released to
// be a daemon; the launcher ends both if one ends. The holder, which waits in
// wait4(2), is killed by the kernel with the launcher's thread, and the kernel
// kills everything else in its PID namespace.
//
// The launcher forwards signals to the command, by its pidfd, or to the engine if
// there is no command; signals to an engine beside a command go the same way. If the
// command does not end after a first TERM to the launcher, a second one kills the
// holder. The exit status is the command's, or 128 plus the number of the signal that
// killed it; 127 and 126 if the command is not found or cannot be executed; 1 for our
// own failures.
//
// The PID file has the pid of the process that keeps running: the launcher, which
// removes the file in the end, or the daemon, which cannot, having no file system.
//
// The package also has what the engine needs of a namespace while it serves:
// [Do] and [Worker]. It is used by cmd/penne and the control plane, never by
// the packet path.
package netns
