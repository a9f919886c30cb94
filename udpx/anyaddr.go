package udpx

import (
	"penne/internal/wire"
	"penne/shard/flow"
)

// anyAddrIndex finds the flows that began on the host by their key without the
// guest's address. A server in the guest that is bound to any address may answer
// from another one than it was asked at, and forwarded datagrams go to the address
// last seen of the guest: the answer, and the peer's next datagram, are the flow's
// all the same.
//
// The keys are claimed in the shards' directory, as the flows' own are.
type anyAddrIndex struct {
	table *flow.Table
	flow  []int32 // the flow's slot, by slot in table
}

func newAnyAddrIndex(flows int, seed *flow.Seed) anyAddrIndex {
	return anyAddrIndex{flow.NewTable(flows, seed), make([]int32, flows)}
}

// find returns the slot of the flow with the any-address key k, or -1.
func (q *anyAddrIndex) find(k *flow.Key, hash uint64) int32 {
	if at := q.table.Find(k, hash); at >= 0 {
		return q.flow[at]
	}
	return -1
}

// anyAddrKey is key without the guest's address. It is no flow's key: no guest sends
// from ::.
func (u *UDP) anyAddrKey(key *flow.Key) (k flow.Key, hash uint64) {
	k = *key
	k.Guest = wire.Addr{}
	return k, u.anyAddr.table.Hash(&k)
}

// indexAnyAddr adds the flow at slot, which began on the host, to the index, unless
// there is one that differs only in the guest's address.
func (u *UDP) indexAnyAddr(slot int32) {
	k, hash := u.anyAddrKey(u.table.Key(slot))
	if u.anyAddr.table.Find(&k, hash) >= 0 || u.env.ClaimFlow(hash) != u.env.Shard {
		return
	}
	at := u.anyAddr.table.Insert(&k, hash) // never full: it has a slot for each flow
	u.anyAddr.flow[at] = slot
	u.rec[slot].anyAddr = at + 1
}

// unindexAnyAddr removes r from the index, if it is there.
func (u *UDP) unindexAnyAddr(r *record) {
	if r.anyAddr == 0 {
		return
	}
	at := r.anyAddr - 1
	u.env.Release(u.anyAddr.table.HashAt(at))
	u.anyAddr.table.Remove(at)
}

// findAnyAddr is the slot of the flow that key's peer began through l, when the guest
// had another address; or -1.
func (u *UDP) findAnyAddr(l *listener, key *flow.Key) int32 {
	k, hash := u.anyAddrKey(key)
	slot := u.anyAddr.find(&k, hash)
	if slot < 0 || u.rec[slot].hostPort != l.port {
		return -1
	}
	return slot
}
