package load

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"penne/test/bed"
)

var (
	_ = bed.Register("load-send", sendTool)
	_ = bed.Register("load-receive", receiveTool)
	_ = bed.Register("load-hold", holdTool)
	_ = bed.Register("load-bind", bindTool)
)

// Args are the arguments of the UDP tools.
func Args(addr string, s Shape, lasting time.Duration) []string {
	return []string{addr, strconv.Itoa(s.Size), strconv.FormatBool(s.Offload), lasting.String()}
}

func parse(args []string) (c *net.UDPConn, s Shape, lasting time.Duration, err error) {
	if s.Size, err = strconv.Atoi(args[1]); err != nil {
		return
	}
	if s.Offload, err = strconv.ParseBool(args[2]); err != nil {
		return
	}
	if lasting, err = time.ParseDuration(args[3]); err != nil {
		return
	}
	conn, err := net.Dial("udp", args[0])
	if err != nil {
		return
	}
	return conn.(*net.UDPConn), s, lasting, nil
}

// sendTool sends to a receiver and reports the number of datagrams sent.
func sendTool(args []string) (any, error) {
	c, s, lasting, err := parse(args)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	sent, err := Send(c, nil, s, lasting)
	if err != nil {
		return nil, err
	}
	if err := SendEnd(c, nil); err != nil {
		return nil, err
	}
	return sent, nil
}

// receiveTool asks a sender to begin, by one datagram, and counts what comes.
func receiveTool(args []string) (any, error) {
	c, s, lasting, err := parse(args)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r, err := NewReceiver(c, s)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte("begin")); err != nil {
		return nil, err
	}
	if err := r.Receive(time.Now().Add(lasting + 3*time.Second)); err != nil {
		return nil, err
	}
	return r.Wait(), nil
}

// holdTool opens COUNT connections to ADDR and keeps them until it is killed. It says when they are open.
func holdTool(args []string) (any, error) {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	conns := make([]net.Conn, count)
	for i := range conns {
		if conns[i], err = net.Dial("tcp", args[0]); err != nil {
			return nil, err
		}
	}
	fmt.Println("holding")
	return bed.Forever()
}

// bindTool binds COUNT ports from FIRST on, one after the other, each until a connection has come, and reports how
// long each waited for it, in milliseconds. Between them it waits GAP longer each time, so as to meet a peer that
// looks at intervals at all times of these.
func bindTool(args []string) (any, error) {
	first, err := strconv.Atoi(args[0])
	if err != nil {
		return nil, err
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	gap, err := time.ParseDuration(args[2])
	if err != nil {
		return nil, err
	}
	waited := make([]float64, count)
	for i := range waited {
		time.Sleep(time.Duration(i) * gap)
		if waited[i], err = awaitCaller(":" + strconv.Itoa(first+i)); err != nil {
			return nil, err
		}
	}
	return waited, nil
}

// awaitCaller is how long a new listener waits for its first connection.
func awaitCaller(addr string) (ms float64, err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	bound := time.Now()
	if err := l.(*net.TCPListener).SetDeadline(bound.Add(5 * time.Second)); err != nil {
		return 0, err
	}
	c, err := l.Accept()
	if err != nil {
		return 0, err
	}
	return float64(time.Since(bound)) / float64(time.Millisecond), c.Close()
}
