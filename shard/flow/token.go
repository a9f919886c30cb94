package flow

// Kind is what a Token's descriptor is.
type Kind uint8

// Kinds of token.
const (
	KindTap Kind = iota
	KindWake
	KindTCP
	KindUDP
	KindPing
	KindListenTCP
	KindListenUDP
	KindSplice
	KindRelayUDP
)

// Token is the data (epoll_data) of a descriptor in a shard's epoll: its kind, the
// slot of its record, and the low 24 bits of the slot's generation, which tell an
// event of a flow that has ended from one of its successor in the slot.
type Token uint64

// NewToken packs a token.
func NewToken(k Kind, gen uint32, slot int32) Token {
	return Token(uint64(k)<<56 | uint64(gen&0xffffff)<<32 | uint64(uint32(slot)))
}

// Kind is what the descriptor is.
func (t Token) Kind() Kind { return Kind(t >> 56) }

// Slot is the record's number.
func (t Token) Slot() int32 { return int32(uint32(t)) }

// Gen is the low 24 bits of the generation the slot had.
func (t Token) Gen() uint32 { return uint32(t>>32) & 0xffffff }
