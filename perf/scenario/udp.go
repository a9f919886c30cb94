package scenario

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"penne/perf/load"
	"penne/perf/report"
	"penne/test/bed"
)

// udpRows count delivered datagrams. 8972 bytes are measured at MTU 9000, the others at 1500.
func udpRows() []Row {
	var rows []Row
	for _, offload := range []bool{false, true} {
		for _, size := range []int{64, 1400, 8972} {
			for _, direction := range []string{"out", "in"} {
				rows = append(rows, udpRow(direction, load.Shape{Size: size, Offload: offload}))
			}
		}
	}
	return rows
}

func udpRow(direction string, shape load.Shape) Row {
	kind := "udp"
	if shape.Offload {
		kind = "udp-gso"
	}
	row := Row{
		Name:    fmt.Sprintf("%s/%s/%d", kind, direction, shape.Size),
		MTU:     1500,
		Metrics: []Metric{{Unit: "datagrams/s", Targets: udpTargets(direction, shape)}},
		Sample:  func(e *Env) (Figures, error) { return e.datagramsOut(shape) },
	}
	if shape.Size > 1472 {
		row.MTU = 9000
	}
	if direction == "in" {
		row.Sample = func(e *Env) (Figures, error) { return e.datagramsIn(shape) }
	}
	return row
}

func udpTargets(direction string, shape load.Shape) []report.Target {
	switch {
	case shape.Size != 1400:
		return nil
	case shape.Offload:
		return []report.Target{report.AtLeast(4, report.Debian)}
	case direction == "out":
		return []report.Target{report.AtLeast(1.5, report.Debian)}
	default:
		return []report.Target{report.AtLeast(1.1, report.Debian)}
	}
}

// listenFar binds a UDP socket in remote.
func (e *Env) listenFar() (*net.UDPConn, string, error) {
	addr := bed.HostPort(bed.RemoteIP4, strconv.Itoa(freePort()))
	c, err := e.Bed.Remote.ListenPacket("udp", addr)
	if err != nil {
		return nil, "", err
	}
	return c.(*net.UDPConn), addr, nil
}

// datagramsOut sends from inside and counts in remote.
func (e *Env) datagramsOut(shape load.Shape) (Figures, error) {
	c, addr, err := e.listenFar()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r, err := load.NewReceiver(c, shape)
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	go func() { failed <- r.Receive(time.Now().Add(e.Lasting + 5*time.Second)) }()
	var sent int64
	if err := e.Session.Tool(&sent, "load-send", load.Args(addr, shape, e.Lasting)...); err != nil {
		return nil, err
	}
	if err := <-failed; err != nil {
		return nil, err
	}
	return delivered(r.Wait())
}

// datagramsIn sends from remote to whoever asked for it, and counts inside.
func (e *Env) datagramsIn(shape load.Shape) (Figures, error) {
	c, addr, err := e.listenFar()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	go func() {
		_, to, err := c.ReadFrom(make([]byte, 64))
		if err == nil {
			_, err = load.Send(c, to, shape, e.Lasting)
		}
		if err == nil {
			err = load.SendEnd(c, to)
		}
		failed <- err
	}()
	var flow load.Flow
	if err := e.Session.Tool(&flow, "load-receive", load.Args(addr, shape, e.Lasting)...); err != nil {
		return nil, err
	}
	if err := <-failed; err != nil {
		return nil, err
	}
	return delivered(flow)
}

func delivered(f load.Flow) (Figures, error) {
	if f.Rate() == 0 {
		return nil, fmt.Errorf("no datagram was delivered: %+v", f)
	}
	return Figures{"": f.Rate()}, nil
}
