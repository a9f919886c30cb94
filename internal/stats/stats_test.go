package stats

import (
	"reflect"
	"testing"
)

// TestAddCoversEveryField fails when a counter is added and Add forgets it.
func TestAddCoversEveryField(t *testing.T) {
	var a, b Counters
	fill := reflect.ValueOf(&b).Elem()
	for i := range fill.NumField() {
		if f := fill.Field(i); f.Kind() == reflect.Array {
			for j := range f.Len() {
				f.Index(j).SetUint(uint64(j + 1))
			}
		} else {
			f.SetUint(uint64(i + 1))
		}
	}
	a.Add(&b)
	a.Add(&b)
	got := reflect.ValueOf(a)
	for i := range got.NumField() {
		if f := got.Field(i); f.Kind() == reflect.Uint64 && f.Uint() != uint64(2*(i+1)) {
			t.Errorf("%s is not added", got.Type().Field(i).Name)
		}
	}
	if a.Drops[NumReasons-1] != 2*uint64(NumReasons) {
		t.Error("drops are not added")
	}
}

func TestReasonsHaveNames(t *testing.T) {
	for r := range NumReasons {
		if r.String() == "" {
			t.Errorf("reason %d has no name", r)
		}
	}
}
