package interop

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestUUIDs(t *testing.T) {
	t.Parallel()
	verify(t, "UUIDs of `courant attach-uuids`: version, clock, producer, flags", uuidGo, uuidsFromCourant)
}

// The parts of a message's UUID (consumer protocol §2.1).
func clockOf(id uuid.UUID) uint64    { return uint64(id.Time())<<4 | uint64(id.ClockSequence()>>10&0xf) }
func flagsOf(id uuid.UUID) int       { return id.ClockSequence() & 0x3ff }
func producerOf(id uuid.UUID) string { return string(id.NodeID()) }

// stamp makes a message's UUID.
func stamp(t *testing.T, producer [6]byte, clock uint64, flags uint16) uuid.UUID {
	t.Helper()
	var id uuid.UUID
	ticks := clock >> 4
	binary.BigEndian.PutUint32(id[0:], uint32(ticks))
	binary.BigEndian.PutUint16(id[4:], uint16(ticks>>32))
	binary.BigEndian.PutUint16(id[6:], 0x1000|uint16(ticks>>48)&0x0fff)
	binary.BigEndian.PutUint16(id[8:], 0x8000|uint16(clock&0xf)<<10|flags)
	copy(id[10:], producer[:])
	if id.Version() != 1 || id.Variant() != uuid.RFC4122 || clockOf(id) != clock || flagsOf(id) != int(flags) {
		t.Fatalf("%s is not of clock %d and flags %d", id, clock, flags)
	}
	return id
}

// clockAt is the clock of a time.
func clockAt(when time.Time) uint64 { return (uint64(when.UnixNano()/100) + 122192928000000000) << 4 }

func uuidsFromCourant(t *testing.T) {
	before := time.Now()
	input := strings.Repeat("a line, with a comma\n", 1000)
	out := run(t, program("courant"), []string{"attach-uuids"}, t.TempDir(), []byte(input))
	again := run(t, program("courant"), []string{"attach-uuids"}, t.TempDir(), []byte(input))
	after := time.Now().Add(time.Second)
	rows := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	var last uint64
	var producer string
	for i, row := range rows {
		text, rest, _ := strings.Cut(row, ",")
		id, err := uuid.Parse(text)
		if err != nil || id.String() != text || rest != "a line, with a comma" {
			t.Fatalf("%q: %v", row, err)
		}
		if id.Version() != 1 || id.Variant() != uuid.RFC4122 || flagsOf(id) != 0 {
			t.Fatalf("%s: version %v, variant %v, flags %x", id, id.Version(), id.Variant(), flagsOf(id))
		}
		if i == 0 {
			producer = producerOf(id)
			if producer[0]&1 == 0 {
				t.Fatalf("%s: the producer could be the address of a network card", id)
			}
			sec, nsec := id.Time().UnixTime()
			if when := time.Unix(sec, nsec); when.Before(before.Add(-time.Second)) || when.After(after) {
				t.Fatalf("%s is of %v", id, when)
			}
		} else if clockOf(id) <= last || producerOf(id) != producer {
			t.Fatalf("%s: clock %d after %d, producer %x after %x", id, clockOf(id), last, producerOf(id), producer)
		}
		last = clockOf(id)
	}
	first, _, _ := strings.Cut(again, ",")
	if other, err := uuid.Parse(first); err != nil || producerOf(other) == producer || len(rows) != 1000 {
		t.Fatalf("%d lines; another run has producer %x of %s (%v)", len(rows), producer, first, err)
	}
}
