package portscan

import (
	"errors"
	"fmt"

	"penne/internal/sys"
)

// Options say what a Scanner looks for.
type Options struct {
	TCP, UDP bool
	// Proc takes the tables under /proc/net even where sock_diag works.
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

// Open makes a Scanner for the network namespace of the calling thread, which
// it needs no more afterwards: neither capabilities nor a file system. It tries
// what it will use, each protocol apart, for sock_diag's are modules of their
// own.
func Open(o Options) (*Scanner, error) {
	s := &Scanner{}
	var why error
	if !o.Proc {
		s.diag, why = openDiag()
	}
	err := s.choose(o, why)
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

func (s *Scanner) choose(o Options, why error) error {
	if o.TCP {
		if err := s.open(&s.tcp, "tcp", sys.IPPROTO_TCP, sys.TCPListen); err != nil {
			return fmt.Errorf("find listening TCP ports: %w", errors.Join(why, err))
		}
	}
	if o.UDP {
		if err := s.open(&s.udp, "udp", sys.IPPROTO_UDP, sys.TCPClose); err != nil {
			return fmt.Errorf("find bound UDP ports: %w", errors.Join(why, err))
		}
	}
	return nil
}

// open chooses the source for one protocol. IPv6 may be missing.
func (s *Scanner) open(src *source, name string, proto, state byte) error {
	v4, v6 := request{sys.AF_INET, proto, state}, request{sys.AF_INET6, proto, state}
	var scrap Families
	if s.diag != nil && s.diag.dump(v4, &scrap) == nil {
		src.dumps = append(src.dumps, v4)
		if s.diag.dump(v6, &scrap) == nil {
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

// Scan fills r with what is bound now. After an error r holds what was read
// until then, and the next Scan starts afresh.
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
