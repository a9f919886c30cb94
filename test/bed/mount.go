package bed

import (
	"fmt"
	"syscall"
)

// BindMount puts a file over another one, for the processes that are started in the namespace from now on. Others
// see no change: the thread they are forked from gets a mount namespace of its own.
func (n *NS) BindMount(file, over string) error {
	done := make(chan error)
	n.spawn <- func() { done <- bindMount(file, over) }
	if err := <-done; err != nil {
		return fmt.Errorf("bind %s over %s in %s: %w", file, over, n.Name, err)
	}
	return nil
}

func bindMount(file, over string) error {
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		return err
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	return syscall.Mount(file, over, "", syscall.MS_BIND, "")
}
