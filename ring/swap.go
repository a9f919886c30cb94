package ring

// Swap exchanges the i-th and j-th frame behind the committed ones (see Peek).
// Who filled many frames with one call and drops some of them moves the ones
// to keep to the front this way, without copying.
func (o *Out) Swap(i, j int) {
	a, b := o.n+i, o.n+j
	o.set[a], o.set[b] = o.set[b], o.set[a]
}
