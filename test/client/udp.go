package client

import (
	"fmt"
	"net"

	"penne/test/bed"
)

var (
	_ = bed.Register("udpecho", udpEchoTool)
	_ = bed.Register("udpsend", udpSendTool)
)

// udpEchoTool sends one datagram of each size to ADDR, in turn, and wants each back as it was.
func udpEchoTool(args []string) (any, error) {
	c, err := dial("udp", args[0])
	if err != nil {
		return failed(Outcome{}, err)
	}
	defer c.Close()
	var o Outcome
	for i, arg := range args[1:] {
		_, size, err := seedAndSize([]string{"0", arg})
		if err != nil {
			return nil, err
		}
		if err := echoDatagram(c, uint64(i), size); err != nil {
			return failed(o, fmt.Errorf("datagram of %d bytes: %w", size, err))
		}
		o.Bytes += size
	}
	return o, nil
}

func echoDatagram(c net.Conn, seed uint64, size int64) error {
	sent := make([]byte, size)
	bed.NewPattern(seed).Read(sent)
	if _, err := c.Write(sent); err != nil {
		return err
	}
	got := make([]byte, 1<<16)
	n, err := c.Read(got)
	if err != nil {
		return err
	}
	if string(got[:n]) != string(sent) {
		return fmt.Errorf("%d other bytes came back", n)
	}
	return nil
}

// udpSendTool sends a datagram to ADDR where nobody is and reports the error that comes back.
func udpSendTool(args []string) (any, error) {
	c, err := dial("udp", args[0])
	if err != nil {
		return failed(Outcome{}, err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("anybody?")); err != nil {
		return failed(Outcome{}, err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return failed(Outcome{}, err)
	}
	return Outcome{}, nil
}
