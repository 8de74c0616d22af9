package interop

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	gogoproto "github.com/gogo/protobuf/proto"
	gogotypes "github.com/gogo/protobuf/types"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	gogopb "interop/gen/gogo/protocol"
	pb "interop/gen/protocol"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	verify(t, "etcd keys that Courant wrote: items, member, assignments, leases", with(etcdGo, gogo), keysFromCourant)
	verify(t, "a JournalSpec that Go put into etcd is served, changed and deleted", with(etcdGo, gogo), keysFromGo)
	verify(t, "a member that Go announced gets assignments, and gives them back", with(etcdGo, gogo), memberFromGo)
	verify(t, "values that do not decode are passed over until they do", with(etcdGo, gogo), keysUndecodable)
}

// ofKeys is a broker on an etcd of its own: these tests let a member come to which journals may move.
var ofKeys = shared(func() (*broker, error) { return onEtcdOf("courant-one") })

func unmarshalGogo[T any, P interface {
	*T
	gogoproto.Message
}](t *testing.T, value []byte) P {
	t.Helper()
	message := P(new(T))
	if err := gogoproto.Unmarshal(value, message); err != nil {
		t.Fatal(err)
	}
	return message
}

func keysFromCourant(t *testing.T) {
	b, name := ofKeys(t), "interop/keys/one"
	b.create(t, spec(name, pb.CompressionCodec_SNAPPY))
	item := onlyKey(t, b.etcd, b.prefix+"/items/"+name)
	stored := unmarshalGogo[gogopb.JournalSpec](t, item.Value)
	if stored.Name != name || stored.Replication != 1 || stored.Fragment.Stores[0] != "file:///" || stored.Fragment.RefreshInterval.Seconds != 1 || item.Lease != 0 {
		t.Fatalf("item: %v of lease %d", stored, item.Lease)
	}
	// Another encoder of the protocol would have written the same bytes.
	if want, err := gogoproto.Marshal(stored); err != nil || !bytes.Equal(item.Value, want) {
		t.Fatalf("item: %x, expected %x", item.Value, want)
	}
	members := get(t, b.etcd, b.prefix+"/members/", clientv3.WithPrefix())
	var member *gogopb.BrokerSpec
	var lease int64
	for _, kv := range members.Kvs {
		if string(kv.Key) == b.prefix+"/members/zone-a#courant-one" {
			member, lease = unmarshalGogo[gogopb.BrokerSpec](t, kv.Value), kv.Lease
		}
	}
	if member == nil || member.ProcessSpec.Id.Zone != "zone-a" || member.ProcessSpec.Id.Suffix != "courant-one" || member.ProcessSpec.Endpoint != b.endpoint || member.JournalLimit != 1024 || member.Exiting {
		t.Fatalf("member: %v", members)
	}
	live := must[*clientv3.LeaseTimeToLiveResponse](t)(b.etcd.TimeToLive(within(t), clientv3.LeaseID(lease)))
	if live.GrantedTTL != 5 || live.TTL < 0 {
		t.Fatalf("the member's lease: %v", live)
	}
	// An assignment has the member's lease, and the route once it is consistent: members and primary, no endpoints.
	eventually(t, "the assignment holds its route", func() error {
		kvs := get(t, b.etcd, b.prefix+"/assign/"+name+"#", clientv3.WithPrefix()).Kvs
		if len(kvs) != 1 || string(kvs[0].Key) != b.prefix+"/assign/"+name+"#zone-a#courant-one#0" || kvs[0].Lease != lease {
			return fmt.Errorf("assignments: %v", kvs)
		}
		route := unmarshalGogo[gogopb.Route](t, kvs[0].Value)
		if len(route.Members) != 1 || route.Members[0].Suffix != "courant-one" || route.Primary != 0 || len(route.Endpoints) != 0 {
			return fmt.Errorf("route: %v", route)
		}
		return nil
	})
}

// gogoSpec is a specification as Go programs of the protocol hold it.
func gogoSpec(name string) *gogopb.JournalSpec {
	return &gogopb.JournalSpec{
		Name: name, Replication: 1,
		Labels: &gogopb.LabelSet{Labels: []*gogopb.Label{{Name: "app.gazette.dev/tag", Value: "of-go"}}},
		Fragment: &gogopb.JournalSpec_Fragment{
			Length: 1 << 20, CompressionCodec: gogopb.CompressionCodec_GZIP, Stores: []string{"file:///"},
			RefreshInterval: &gogotypes.Duration{Seconds: 1}, Retention: &gogotypes.Duration{}, FlushInterval: &gogotypes.Duration{},
		},
	}
}

func (b *broker) putItem(t *testing.T, spec *gogopb.JournalSpec) int64 {
	t.Helper()
	value, err := gogoproto.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	return put(t, b.etcd, b.prefix+"/items/"+spec.Name, string(value))
}

func keysFromGo(t *testing.T) {
	b, name := ofKeys(t), "interop/keys/from-go"
	revision := b.putItem(t, gogoSpec(name))
	b.awaitPrimary(t, name)
	b.mustAppend(t, name, []byte("content"))
	listed := b.list(t, include("name", name)).Journals[0]
	if listed.ModRevision != revision || listed.CreateRevision != revision || listed.Spec.Labels.Labels[0].Value != "of-go" {
		t.Fatalf("listed: %v, put at %d", listed, revision)
	}
	changed := gogoSpec(name)
	changed.Flags = uint32(gogopb.JournalSpec_O_RDONLY)
	revision = b.putItem(t, changed)
	refused, err := b.append(within(t), &pb.AppendRequest{Journal: name, MinEtcdRevision: revision}, []byte("x"))
	if err != nil || refused.Status != pb.Status_NOT_ALLOWED {
		t.Fatalf("an append which waits for the change of a specification: %v %v", refused, err)
	}
	if _, err := b.etcd.Delete(within(t), b.prefix+"/items/"+name); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the deleted journal is gone", func() error {
		responses, err := b.read(within(t), &pb.ReadRequest{Journal: name})
		if err != nil || responses[0].Status != pb.Status_JOURNAL_NOT_FOUND {
			return fmt.Errorf("%v %v", responses, err)
		}
		if left := get(t, b.etcd, b.prefix+"/assign/"+name+"#", clientv3.WithPrefix()); left.Count != 0 {
			return fmt.Errorf("assignments: %v", left.Kvs)
		}
		return nil
	})
}

// A member that leaves its journals alone: Courant leads the allocation, and assigns it what it asks for.
func memberFromGo(t *testing.T) {
	b, name := ofKeys(t), "interop/keys/two-replicas"
	lease := must[*clientv3.LeaseGrantResponse](t)(b.etcd.Grant(within(t), 60)).ID
	member := &gogopb.BrokerSpec{
		ProcessSpec:  &gogopb.ProcessSpec{Id: &gogopb.ProcessSpec_ID{Zone: "zone-b", Suffix: "of-go"}, Endpoint: "http://127.0.0.1:1"},
		JournalLimit: 4,
	}
	value, err := gogoproto.Marshal(member)
	if err != nil {
		t.Fatal(err)
	}
	put(t, b.etcd, b.prefix+"/members/zone-b#of-go", string(value), clientv3.WithLease(lease))
	two := gogoSpec(name)
	two.Replication = 2
	b.putItem(t, two)
	// The assignment is empty as the leader made it, and goes with the lease of the member that it is of.
	eventually(t, "the member has an assignment", func() error {
		for _, kv := range get(t, b.etcd, b.prefix+"/assign/"+name+"#zone-b#of-go#", clientv3.WithPrefix()).Kvs {
			if kv.Lease != int64(lease) || len(kv.Value) != 0 {
				t.Fatalf("assignment: %v, the member's lease is %d", kv, lease)
			}
			return nil
		}
		return errors.New("none yet")
	})
	eventually(t, "the listing has both members", func() error {
		listed := b.list(t, include("name", name)).Journals
		if len(listed) != 1 || len(listed[0].Route.Members) != 2 || listed[0].Route.Members[1].Suffix != "of-go" || listed[0].Route.Endpoints[1] != "http://127.0.0.1:1" {
			return fmt.Errorf("listed: %v", listed)
		}
		return nil
	})
	// The member leaves, and what it had with it. Without it the journal has too few brokers, and says so.
	if _, err := b.etcd.Revoke(within(t), lease); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the journal has too few brokers", func() error {
		response, err := b.append(within(t), &pb.AppendRequest{Journal: name})
		if err != nil || response.Status != pb.Status_INSUFFICIENT_JOURNAL_BROKERS {
			return fmt.Errorf("%v %v", response, err)
		}
		return nil
	})
	if _, err := b.etcd.Delete(within(t), b.prefix+"/items/"+name); err != nil {
		t.Fatal(err)
	}
}

func keysUndecodable(t *testing.T) {
	b, name := ofKeys(t), "interop/keys/undecodable"
	key := b.prefix + "/items/" + name
	put(t, b.etcd, key, "\xff\xff is not a message")
	// A key after it tells that it was seen.
	b.create(t, spec("interop/keys/undecodable-next", pb.CompressionCodec_NONE))
	if listed := b.list(t, include("name", name)); len(listed.Journals) != 0 {
		t.Fatalf("listed: %v", listed.Journals)
	}
	b.putItem(t, gogoSpec(name))
	b.awaitPrimary(t, name)
	before := b.list(t, include("name", name)).Journals[0]
	// An update that does not decode, or is of another name, leaves what was there.
	other, err := gogoproto.Marshal(gogoSpec("interop/keys/another"))
	if err != nil {
		t.Fatal(err)
	}
	for i, value := range []string{"\xff", string(other), ""} {
		put(t, b.etcd, key, value)
		b.create(t, spec(fmt.Sprintf("interop/keys/undecodable-next-%d", i), pb.CompressionCodec_NONE))
		if after := b.list(t, include("name", name)).Journals; len(after) != 1 || !proto.Equal(after[0], before) {
			t.Fatalf("after %q: %v, expected %v", value, after, before)
		}
	}
	changed := gogoSpec(name)
	changed.Labels.Labels[0].Value = "corrected"
	revision := b.putItem(t, changed)
	eventually(t, "the correction is seen", func() error {
		if after := b.list(t, include("name", name)).Journals[0]; after.ModRevision != revision || !strings.Contains(after.String(), "corrected") {
			return fmt.Errorf("%v", after)
		}
		return nil
	})
}
