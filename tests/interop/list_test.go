package interop

import (
	"fmt"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "interop/gen/protocol"
)

func TestList(t *testing.T) {
	t.Parallel()
	verify(t, "List: selectors, prefixes, routes, revisions, batches of 25", grpcGo, listSelectors)
	verify(t, "List: a watch sends whole snapshots, ended by an empty one, and resumes", grpcGo, listWatch)
	verify(t, "Apply: etcd revisions are compared, all changes or none", with(grpcGo, etcdGo), applyRevisions)
	verify(t, "responses are of content-type application/grpc, exactly", grpcGo, contentType)
}

// list merges the messages of a listing into one.
func (b *broker) list(t *testing.T, selector *pb.LabelSelector) *pb.ListResponse {
	t.Helper()
	stream, err := b.journal.List(within(t), &pb.ListRequest{Selector: selector})
	if err != nil {
		t.Fatal(err)
	}
	var all *pb.ListResponse
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if all == nil {
			all = response
		} else {
			all.Journals = append(all.Journals, response.Journals...)
		}
	}
}

func listSelectors(t *testing.T) {
	b := alone(t)
	var specs []*pb.JournalSpec
	for i := range 30 {
		one := spec(fmt.Sprintf("interop/list/part-%02d", i), pb.CompressionCodec_NONE)
		one.Labels = labels("app.gazette.dev/region", fmt.Sprintf("region-%d", i%3), "app.gazette.dev/tag", "of-interop")
		specs = append(specs, one)
	}
	b.create(t, specs...)
	stream, err := b.journal.List(within(t), &pb.ListRequest{Selector: &pb.LabelSelector{
		Include: &pb.LabelSet{Labels: []*pb.Label{{Name: "name", Value: "interop/list/", Prefix: true}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	var listed []*pb.ListResponse_Journal
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		// The first message has the header; later ones have journals alone.
		if first := len(sizes) == 0; first != (response.Header != nil && response.Header.Etcd.GetClusterId() != 0) || response.Status != pb.Status_OK {
			t.Fatalf("message %d: %v", len(sizes), response)
		}
		sizes = append(sizes, len(response.Journals))
		listed = append(listed, response.Journals...)
	}
	if fmt.Sprint(sizes) != "[25 5]" {
		t.Fatalf("batches of %v, expected [25 5]", sizes)
	}
	for i, journal := range listed {
		if !proto.Equal(journal.Spec, specs[i]) || journal.ModRevision < journal.CreateRevision || journal.CreateRevision <= 0 || journal.Route.Primary != 0 {
			t.Fatalf("journal %d: %v, expected %v", i, journal, specs[i])
		}
	}
	for _, c := range []struct {
		what     string
		selector *pb.LabelSelector
		count    int
	}{
		{"one name", include("name", "interop/list/part-03"), 1},
		{"two values of a name", include("app.gazette.dev/region", "region-0", "app.gazette.dev/region", "region-1"), 20},
		{"a legacy prefix", include("app.gazette.dev/region", "", "prefix", "interop/list/"), 30},
		{"an exclusion", &pb.LabelSelector{Include: labels("app.gazette.dev/tag", "of-interop"), Exclude: labels("app.gazette.dev/region", "region-2")}, 20},
		{"nothing", include("app.gazette.dev/region", "elsewhere"), 0},
	} {
		if got := b.list(t, c.selector); len(got.Journals) != c.count || got.Header.Route.Primary != -1 {
			t.Errorf("%s: %d journals, expected %d", c.what, len(got.Journals), c.count)
		}
	}
	bad, err := b.journal.List(within(t), &pb.ListRequest{Selector: include("prefix", "no-slash")})
	if err == nil {
		_, err = bad.Recv()
	}
	wantError(t, "a prefix without its slash", err, codes.Unknown, `Selector.Include.Labels["prefix"]: expected trailing '/' (no-slash)`)
}

// snapshot receives messages up to the empty one that ends a watch's snapshot.
func snapshot(t *testing.T, stream pb.Journal_ListClient) *pb.ListResponse {
	t.Helper()
	all, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(response.Journals) == 0 {
			return all
		}
		all.Journals = append(all.Journals, response.Journals...)
	}
}

func listWatch(t *testing.T) {
	b := alone(t)
	request := &pb.ListRequest{Watch: true, Selector: include("prefix", "interop/watch/")}
	stream, err := b.journal.List(within(t), request)
	if err != nil {
		t.Fatal(err)
	}
	last := snapshot(t, stream)
	if len(last.Journals) != 0 || last.Header.Etcd.Revision <= 0 {
		t.Fatalf("the first snapshot: %v", last)
	}
	// Each snapshot is of a later revision, and whole.
	awaitCount := func(count int) {
		t.Helper()
		for len(last.Journals) != count {
			next := snapshot(t, stream)
			if next.Header.Etcd.Revision <= last.Header.Etcd.Revision {
				t.Fatalf("a snapshot of revision %d after one of %d", next.Header.Etcd.Revision, last.Header.Etcd.Revision)
			}
			last = next
		}
	}
	for i := range 3 {
		b.create(t, spec(fmt.Sprintf("interop/watch/part-%d", i), pb.CompressionCodec_NONE))
		awaitCount(i + 1)
	}
	response, err := b.journal.Apply(within(t), &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{{ExpectModRevision: -1, Delete: "interop/watch/part-1"}}})
	if err != nil || response.Status != pb.Status_OK {
		t.Fatalf("delete: %v %v", response, err)
	}
	awaitCount(2)
	// A watch that resumes waits for what comes after what was seen.
	request.WatchResume = last.Header
	resumed, err := b.journal.List(within(t), request)
	if err != nil {
		t.Fatal(err)
	}
	b.create(t, spec("interop/watch/part-9", pb.CompressionCodec_NONE))
	if next := snapshot(t, resumed); next.Header.Etcd.Revision <= last.Header.Etcd.Revision {
		t.Fatalf("a resumed watch began with revision %d, and had seen %d", next.Header.Etcd.Revision, last.Header.Etcd.Revision)
	}
}

func applyRevisions(t *testing.T) {
	b, name := onEtcd(t), "interop/apply/one"
	apply := func(changes ...*pb.ApplyRequest_Change) (*pb.ApplyResponse, error) {
		return b.journal.Apply(within(t), &pb.ApplyRequest{Changes: changes})
	}
	b.create(t, spec(name, pb.CompressionCodec_NONE))
	key := b.prefix + "/items/" + name
	stored, err := b.etcd.Get(within(t), key)
	if err != nil || len(stored.Kvs) != 1 {
		t.Fatalf("the key of the journal: %v %v", stored, err)
	}
	listed := b.list(t, include("name", name)).Journals[0]
	if listed.ModRevision != stored.Kvs[0].ModRevision || listed.CreateRevision != stored.Kvs[0].CreateRevision {
		t.Fatalf("listed revisions %d, %d; etcd has %d, %d", listed.ModRevision, listed.CreateRevision, stored.Kvs[0].ModRevision, stored.Kvs[0].CreateRevision)
	}
	changed := spec(name, pb.CompressionCodec_GZIP)
	for _, c := range []struct {
		what    string
		expect  int64
		outcome pb.Status
	}{
		{"as if it were new", 0, pb.Status_ETCD_TRANSACTION_FAILED},
		{"with a revision of another time", listed.ModRevision + 100, pb.Status_ETCD_TRANSACTION_FAILED},
		{"with its revision", listed.ModRevision, pb.Status_OK},
		{"with its former revision", listed.ModRevision, pb.Status_ETCD_TRANSACTION_FAILED},
		{"with any revision", -1, pb.Status_OK},
	} {
		response, err := apply(&pb.ApplyRequest_Change{ExpectModRevision: c.expect, Upsert: changed})
		if err != nil || response.Status != c.outcome {
			t.Fatalf("applied %s: %v %v", c.what, response, err)
		}
		if c.outcome == pb.Status_OK {
			if now, err := b.etcd.Get(within(t), key); err != nil || now.Kvs[0].ModRevision != response.Header.Etcd.Revision {
				t.Fatalf("applied %s: header of revision %d, etcd has %v %v", c.what, response.Header.Etcd.Revision, now, err)
			}
		}
	}
	// One change that fails keeps the others back.
	response, err := apply(
		&pb.ApplyRequest_Change{Upsert: spec("interop/apply/two", pb.CompressionCodec_NONE)},
		&pb.ApplyRequest_Change{ExpectModRevision: 1, Delete: name},
	)
	if err != nil || response.Status != pb.Status_ETCD_TRANSACTION_FAILED || len(b.list(t, include("name", "interop/apply/two")).Journals) != 0 {
		t.Fatalf("half of a transaction: %v %v", response, err)
	}
	bad := spec("interop/apply/three", pb.CompressionCodec_NONE)
	bad.Replication = 9
	_, err = apply(&pb.ApplyRequest_Change{Upsert: bad})
	wantError(t, "too many replicas", err, codes.Unknown, "Changes[0].Upsert: invalid Replication (9; expected 1 <= Replication <= 5)")
	_, err = apply(&pb.ApplyRequest_Change{Delete: name})
	if err == nil {
		t.Error("a delete without revision was accepted")
	}
	if response, err = apply(&pb.ApplyRequest_Change{ExpectModRevision: -1, Delete: name}); err != nil || response.Status != pb.Status_OK {
		t.Fatalf("delete: %v %v", response, err)
	}
	if gone, err := b.etcd.Get(within(t), key); err != nil || gone.Count != 0 {
		t.Fatalf("the key of a deleted journal: %v %v", gone, err)
	}
}

func contentType(t *testing.T) {
	b := alone(t)
	stream, err := b.journal.List(within(t), &pb.ListRequest{Selector: include("name", "interop/none")})
	if err != nil {
		t.Fatal(err)
	}
	header, err := stream.Header()
	if err != nil || fmt.Sprint(metadata.MD(header).Get("content-type")) != "[application/grpc]" {
		t.Fatalf("header: %v %v", header, err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if err != io.EOF {
		t.Fatal(err)
	}
}
