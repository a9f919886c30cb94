package netns

import (
	"fmt"
	"os"
	"os/user"
	"strconv"

	"penne/internal/conf"
	"penne/internal/sys"
)

// nobody is the user and group ID if the password database has no user "nobody".
const nobody = 65534

// identity is a user to run as.
type identity struct{ uid, gid uint32 }

// serveAs returns the user that engine and command must run as instead of the caller,
// or nil. They never run as root of the initial user namespace; root of another one,
// as with Podman, may.
func serveAs(r *conf.RunAs) (*identity, error) {
	root := os.Geteuid() == 0
	if r == nil {
		if !root || !sys.InInitialUserNamespace() {
			return nil, nil
		}
		return nobodyIdentity(), nil
	}
	id, err := runAs(r)
	if err != nil {
		return nil, err
	}
	own := identity{uint32(os.Geteuid()), uint32(os.Getegid())}
	switch {
	case root && id.uid != 0:
		return &id, nil
	case id == own && !(root && sys.InInitialUserNamespace()):
		return nil, nil
	case root:
		return nil, fmt.Errorf("--runas: root of the initial user namespace does not serve, name another user")
	}
	return nil, fmt.Errorf("--runas: only root may change to user %d, group %d", id.uid, id.gid)
}

func nobodyIdentity() *identity {
	u, err := user.Lookup("nobody")
	if err != nil {
		return &identity{nobody, nobody}
	}
	id, err := parseIdentity(u)
	if err != nil {
		return &identity{nobody, nobody}
	}
	return &id
}

// runAs resolves --runas. A number needs no entry in the password database,
// but then its group, if not given, has the same number.
func runAs(r *conf.RunAs) (identity, error) {
	id := identity{r.UID, r.UID}
	switch {
	case r.HasUID:
		if u, err := user.LookupId(strconv.FormatUint(uint64(r.UID), 10)); err == nil {
			if own, err := parseIdentity(u); err == nil {
				id = own
			}
		}
	default:
		u, err := user.Lookup(r.Login)
		if err != nil {
			return id, fmt.Errorf("--runas: no user '%s'", r.Login)
		}
		if id, err = parseIdentity(u); err != nil {
			return id, fmt.Errorf("--runas: user '%s': %w", r.Login, err)
		}
	}
	switch {
	case r.HasGID:
		id.gid = r.GID
	case r.Group != "":
		g, err := user.LookupGroup(r.Group)
		if err != nil {
			return id, fmt.Errorf("--runas: no group '%s'", r.Group)
		}
		gid, err := strconv.ParseUint(g.Gid, 10, 32)
		if err != nil {
			return id, fmt.Errorf("--runas: group '%s': %w", r.Group, err)
		}
		id.gid = uint32(gid)
	}
	return id, nil
}

func parseIdentity(u *user.User) (id identity, err error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return id, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return id, err
	}
	return identity{uint32(uid), uint32(gid)}, nil
}
