package portscan

import (
	"errors"
	"fmt"

	"penne/internal/sys"
)

// Options say what a Scanner looks for.
type Options struct {
	TCP, UDP bool
	// Proc uses the tables under /proc/net even if sock_diag works.
	Proc bool
}

// Scanner finds bound ports in one network namespace. It is owned by one
// goroutine.
type Scanner struct {
	diag    *diag
	tcp     source
	udp     source
	scratch []byte
}

// source is where one protocol's ports come from: dumps, or tables.
type source struct {
	dumps  []request
	tables []*table
}

// Open makes a Scanner for the network namespace of the calling thread. Scans need
// neither that thread, nor capabilities, nor a file system. For each protocol Open
// tries whether sock_diag works, since it is a kernel module per protocol.
func Open(o Options) (*Scanner, error) {
	s := &Scanner{}
	var why error
	if !o.Proc {
		s.diag, why = openDiag()
	}
	err := s.openSources(o, why)
	if err != nil {
		s.Close()
		return nil, err
	}
	if s.diag != nil && s.tcp.dumps == nil && s.udp.dumps == nil {
		s.diag.close()
		s.diag = nil
	}
	return s, nil
}

func (s *Scanner) openSources(o Options, why error) error {
	if o.TCP {
		if err := s.openSource(&s.tcp, "tcp", sys.IPPROTO_TCP, sys.TCPListen); err != nil {
			return fmt.Errorf("find listening TCP ports: %w", errors.Join(why, err))
		}
	}
	if o.UDP {
		if err := s.openSource(&s.udp, "udp", sys.IPPROTO_UDP, sys.TCPClose); err != nil {
			return fmt.Errorf("find bound UDP ports: %w", errors.Join(why, err))
		}
	}
	return nil
}

// openSource opens the source of one protocol. IPv6 may be missing.
func (s *Scanner) openSource(src *source, name string, proto, state byte) error {
	v4, v6 := request{sys.AF_INET, proto, state}, request{sys.AF_INET6, proto, state}
	var discard Families
	if s.diag != nil && s.diag.dump(v4, &discard) == nil {
		src.dumps = append(src.dumps, v4)
		if s.diag.dump(v6, &discard) == nil {
			src.dumps = append(src.dumps, v6)
		}
		return nil
	}
	if s.scratch == nil {
		s.scratch = make([]byte, bufferSize)
	}
	t4, err := openTable(name, state, s.scratch)
	if err != nil {
		return err
	}
	src.tables = append(src.tables, t4)
	if t6, err := openTable(name+"6", state, s.scratch); err == nil {
		src.tables = append(src.tables, t6)
	}
	return nil
}

// Scan sets r to the ports that are bound now. After an error r has those found
// before it, and Scan may be called again.
func (s *Scanner) Scan(r *Result) error {
	*r = Result{}
	if err := s.scan(&s.tcp, &r.TCP); err != nil {
		return fmt.Errorf("scan TCP ports: %w", err)
	}
	if err := s.scan(&s.udp, &r.UDP); err != nil {
		return fmt.Errorf("scan UDP ports: %w", err)
	}
	return nil
}

func (s *Scanner) scan(src *source, f *Families) error {
	for _, q := range src.dumps {
		if err := s.diag.dump(q, f); err != nil {
			return err
		}
	}
	for _, t := range src.tables {
		if err := t.read(f); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the Scanner's descriptors.
func (s *Scanner) Close() {
	if s.diag != nil {
		s.diag.close()
	}
	for _, t := range append(s.tcp.tables, s.udp.tables...) {
		t.close()
	}
}
