package udpx

import (
	"penne/internal/wire"
	"penne/shard/flow"
)

// questions finds flows that began on the host whatever the guest's address is.
// A server in the guest that is bound to any address answers from whichever its
// kernel chooses, which need not be the one it was asked by, and the address
// that datagrams are led to is the one last seen of the guest: the answer, and
// the next question, belong to the flow of the first question all the same.
//
// A key here is the flow's without the guest's address, of which the shards'
// directory is told as well.
type questions struct {
	table *flow.Table
	flow  []int32 // the flow's slot, by place in table
}

func newQuestions(flows int, seed *flow.Seed) questions {
	return questions{flow.NewTable(flows, seed), make([]int32, flows)}
}

// find returns the flow of the question k, or -1.
func (q *questions) find(k *flow.Key, hash uint64) int32 {
	if at := q.table.Find(k, hash); at >= 0 {
		return q.flow[at]
	}
	return -1
}

// question is what key has in common with the question or answer of another of
// the guest's addresses. It is no flow's key: no guest sends from ::.
func (u *UDP) question(key *flow.Key) (asked flow.Key, hash uint64) {
	asked = *key
	asked.Guest = wire.Addr{}
	return asked, u.asked.table.Hash(&asked)
}

// noteQuestion makes the flow at slot, which began on the host, known to
// questions. Of two that differ in nothing but the guest's address the first is.
func (u *UDP) noteQuestion(slot int32) {
	asked, hash := u.question(u.table.Key(slot))
	if u.asked.table.Find(&asked, hash) >= 0 || !u.env.Claim(nil, hash) {
		return
	}
	at := u.asked.table.Insert(&asked, hash) // never full: it has as many places as there are flows
	u.asked.flow[at] = slot
	u.rec[slot].asked = at + 1
}

// forgetQuestion ends what noteQuestion began.
func (u *UDP) forgetQuestion(r *record) {
	if r.asked == 0 {
		return
	}
	at := r.asked - 1
	u.env.Release(u.asked.table.HashAt(at))
	u.asked.table.Remove(at)
}

// begun is the flow that key's peer began by l when the guest had another
// address, or -1.
func (u *UDP) begun(l *listener, key *flow.Key) int32 {
	asked, hash := u.question(key)
	slot := u.asked.find(&asked, hash)
	if slot < 0 || u.rec[slot].hostPort != l.port {
		return -1
	}
	return slot
}
