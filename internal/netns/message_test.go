package netns

import (
	"net/netip"
	"reflect"
	"testing"

	"penne/internal/sys"
)

func TestHandover(t *testing.T) {
	for _, n := range []int{0, 1, portsPerMessage, portsPerMessage + 1, 4 * 1023} {
		want := &handover{NetNS: 5, Target: -1, Watch: 7, WatchID: 1, Dir: 8, Log: -1, Capture: 9, WatchName: "a name", Attended: true, Command: true}
		for i := range n {
			want.Ports = append(want.Ports, PrivilegedPort{
				FD: 10 + i, TCP: i%2 == 0, Iface: "lo",
				Addr: netip.IPv6LinkLocalAllNodes(), Port: uint16(i),
			})
		}
		a, fd, err := sys.ConnPair()
		if err != nil {
			t.Fatal(err)
		}
		b, err := sys.NewConn(fd)
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() { sent <- want.send(a) }()
		got, err := receiveHandover(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Ports, want.Ports) {
			t.Errorf("%d ports arrive as %d others", n, len(got.Ports))
		}
		got.Ports, want.Ports = nil, nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		a.Close()
		if _, err := receiveHandover(b); err == nil {
			t.Error("a hand-over comes from a closed connection")
		}
		b.Close()
	}
}
