package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	gogopb "interop/gen/gogo/protocol"
	pb "interop/gen/protocol"
)

func TestPeers(t *testing.T) {
	t.Parallel()
	verify(t, "replication from Courant's primary to a replica in Go", with(grpcGo, etcdGo), courantLeads)
	verify(t, "a replica in Go that is ahead: the primary follows, registers too", with(grpcGo, etcdGo), replicaAhead)
	verify(t, "replication from a primary in Go to Courant's replica", with(grpcGo, etcdGo), goLeads)
	verify(t, "appends and reads that Courant proxies to a broker in Go", with(grpcGo, etcdGo), proxied)
	verify(t, "a replica in Go that dies: appends are Unavailable, then too few", with(grpcGo, etcdGo), replicaDies)
}

// A Courant broker and one in Go, on one etcd.
type pair struct {
	*broker
	peer *peer
}

const (
	ledByCourant = "interop/peers/led-by-courant"
	ledByGo      = "interop/peers/led-by-go"
	ofGo         = "interop/peers/of-go-alone"
)

// together has the journal that Courant leads, whose route has been made consistent, and the one that Go leads.
var together = shared(func() (*pair, error) {
	etcd, err := startEtcd()
	if err != nil {
		return nil, err
	}
	// Room for two journals: what comes after these is of the other broker.
	b, err := startBroker(etcd, []string{"--broker.zone=zone-b", "--broker.id=courant", "--broker.limit=2"})
	if err != nil {
		return nil, err
	}
	return &pair{broker: b}, nil
})

// begin makes the journals in an order which leads to the primaries that they are named after.
func (p *pair) begin(t *testing.T) *pair {
	t.Helper()
	if p.peer != nil {
		return p
	}
	p.create(t, spec(ledByCourant, pb.CompressionCodec_SNAPPY))
	p.mustAppend(t, ledByCourant, []byte("first"))
	peer, err := startPeer(p.broker, "zone-a", "of-go", 8)
	if err != nil {
		t.Fatal(err)
	}
	p.peer = peer
	for _, name := range []string{ledByCourant, ledByGo} {
		two := spec(name, pb.CompressionCodec_SNAPPY)
		two.Replication = 2
		response, err := p.journal.Apply(within(t), &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{{ExpectModRevision: -1, Upsert: two}}})
		if err != nil || response.Status != pb.Status_OK {
			t.Fatalf("Apply: %v %v", response, err)
		}
		p.assigned(t, name, 2)
	}
	return p
}

// assigned waits until a journal has so many assignments, and returns them by their keys, less the prefix.
func (p *pair) assigned(t *testing.T, name string, count int) map[string]string {
	t.Helper()
	found := map[string]string{}
	eventually(t, fmt.Sprintf("%s has %d assignments", name, count), func() error {
		clear(found)
		prefix := p.prefix + "/assign/" + name + "#"
		for _, kv := range get(t, p.etcd, prefix, clientv3.WithPrefix()).Kvs {
			found[strings.TrimPrefix(string(kv.Key), prefix)] = string(kv.Value)
		}
		if len(found) != count {
			return fmt.Errorf("%q", found)
		}
		return nil
	})
	return found
}

func courantLeads(t *testing.T) {
	p := together(t).begin(t)
	// The route is in both assignments once the replica has acknowledged.
	eventually(t, "the route is consistent", func() error {
		for key, value := range p.assigned(t, ledByCourant, 2) {
			route := unmarshalGogo[gogopb.Route](t, []byte(value))
			if len(route.Members) != 2 || route.Members[0].Suffix != "of-go" || route.Members[1].Suffix != "courant" || route.Primary != 1 || len(route.Endpoints) != 0 {
				return fmt.Errorf("%s: %v", key, route)
			}
		}
		return nil
	})
	response, err := p.append(within(t), &pb.AppendRequest{Journal: ledByCourant, UnionRegisters: labels("author", "me")}, []byte("sec"), []byte("ond"))
	if err != nil || response.Status != pb.Status_OK || response.Commit.Begin != 5 || response.Commit.End != 11 {
		t.Fatalf("append: %v %v", response, err)
	}
	held, received := p.peer.holds(ledByCourant)
	want := &pb.Fragment{Journal: ledByCourant, Begin: 5, End: 11, Sum: sum([]byte("second")), CompressionCodec: pb.CompressionCodec_SNAPPY}
	if !proto.Equal(held.fragment, want) || string(held.content) != "second" || !proto.Equal(held.registers, labels("author", "me")) {
		t.Fatalf("the replica holds %v %q %v", held.fragment, held.content, held.registers)
	}
	for i, request := range received {
		proposal := request.Proposal
		if i == 0 {
			route := request.Header.GetRoute()
			if request.DeprecatedJournal != ledByCourant || !request.Acknowledge || request.Header.ProcessId.Suffix != "of-go" || request.Header.Etcd.Revision <= 0 ||
				len(route.GetMembers()) != 2 || route.Primary != 1 || route.Endpoints[0] != p.peer.endpoint || route.Endpoints[1] != p.endpoint {
				t.Errorf("the first message: %v", request)
			}
		} else if request.Header != nil && request.DeprecatedJournal == "" || request.Header == nil && request.DeprecatedJournal != "" {
			t.Errorf("message %d: %v", i, request)
		}
		if proposal == nil {
			if len(request.Content) == 0 || request.Registers != nil || request.Acknowledge || request.Header != nil {
				t.Errorf("content: %v", request)
			}
		} else if request.Registers == nil || len(request.Content) != 0 || request.ContentDelta != 0 || proposal.BackingStore != "" || proposal.ModTime != 0 || proposal.PathPostfix != "" || proposal.Sum == nil {
			t.Errorf("proposal: %v", request)
		}
	}
	// What the replica has acknowledged is read.
	responses, err := p.read(within(t), &pb.ReadRequest{Journal: ledByCourant})
	if err != nil || string(content(responses)) != "firstsecond" {
		t.Fatalf("read: %q %v", content(responses), err)
	}
}

// As after an append that some replicas committed and whose primary died: the largest end wins.
func replicaAhead(t *testing.T) {
	p := together(t).begin(t)
	p.peer.fail(ledByCourant, func(s *spool) {
		ahead := []byte("of an append that the primary did not see")
		s.content, s.delta, s.registers = ahead, nil, labels("author", "another")
		s.fragment = &pb.Fragment{Journal: ledByCourant, Begin: 500, End: 500 + int64(len(ahead)), Sum: sum(ahead), CompressionCodec: pb.CompressionCodec_SNAPPY}
	})
	end := int64(500 + len("of an append that the primary did not see"))
	var response *pb.AppendResponse
	eventually(t, "the journal is consistent again", func() error {
		var err error
		response, err = p.append(within(t), &pb.AppendRequest{Journal: ledByCourant}, []byte("third"))
		// Clients try again for this code, and no other.
		if err != nil && status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		if err == nil && response.Status != pb.Status_OK {
			err = errors.New(response.Status.String())
		}
		return err
	})
	if response.Commit.Begin != end || !proto.Equal(response.Registers, labels("author", "another")) {
		t.Fatalf("the append after it: %v, expected to begin at %d", response, end)
	}
	held, received := p.peer.holds(ledByCourant)
	if string(held.content) != "third" || held.fragment.Begin != end || len(received) < 3 || received[0].Header == nil {
		t.Fatalf("the replica holds %v %q of %d messages", held.fragment, held.content, len(received))
	}
}

// header is what a primary in Go attaches to the first message of a stream.
func (p *pair) header(t *testing.T) *pb.Header {
	t.Helper()
	header := p.list(t, include("name", ledByGo)).Header
	route := p.list(t, include("name", ledByGo)).Journals[0].Route
	return &pb.Header{ProcessId: &pb.ProcessSpec_ID{Zone: "zone-b", Suffix: "courant"}, Route: route, Etcd: header.Etcd}
}

func goLeads(t *testing.T) {
	p := together(t).begin(t)
	if keys := p.assigned(t, ledByGo, 2); keys["zone-a#of-go#0"] != "" || len(keys) != 2 {
		t.Fatalf("assignments: %q", keys)
	}
	fragment := func(begin, end int64, content string) *pb.Fragment {
		made := &pb.Fragment{Journal: ledByGo, Begin: begin, End: end, Sum: &pb.SHA1Sum{}, CompressionCodec: pb.CompressionCodec_SNAPPY}
		if content != "" {
			made.Sum = sum([]byte(content))
		}
		return made
	}
	none := &pb.LabelSet{}
	opening := func() *pb.ReplicateRequest {
		return &pb.ReplicateRequest{Header: p.header(t), DeprecatedJournal: ledByGo, Proposal: fragment(0, 0, ""), Registers: none, Acknowledge: true}
	}
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	stream, err := p.journal.Replicate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sends := func(requests ...*pb.ReplicateRequest) {
		t.Helper()
		for _, request := range requests {
			if err := stream.Send(request); err != nil {
				t.Fatal(err)
			}
		}
	}
	receives := func(what string, want pb.Status) *pb.ReplicateResponse {
		t.Helper()
		response, err := stream.Recv()
		if err != nil || response.Status != want {
			t.Fatalf("%s: %v %v, expected %v", what, response, err, want)
		}
		return response
	}
	// The exchange of a new journal: a replica takes the codec of an empty proposal, commits are acknowledged in order, and a
	// roll need not be.
	sends(opening())
	first := receives("sync", pb.Status_OK)
	if first.Header.GetProcessId().GetSuffix() != "courant" || first.Header.Etcd.Revision <= 0 || first.Fragment != nil || first.Registers != nil {
		t.Fatalf("sync: %v", first)
	}
	sends(
		&pb.ReplicateRequest{Content: []byte("fi")},
		&pb.ReplicateRequest{Content: []byte("rst"), ContentDelta: 2},
		&pb.ReplicateRequest{Proposal: fragment(0, 5, "first"), Registers: none, Acknowledge: true},
		&pb.ReplicateRequest{Proposal: fragment(5, 5, ""), Registers: none},
		&pb.ReplicateRequest{Content: []byte("second")},
		&pb.ReplicateRequest{Proposal: fragment(5, 11, "second"), Registers: labels("author", "go"), Acknowledge: true},
	)
	for _, what := range []string{"the first commit", "the second commit"} {
		if response := receives(what, pb.Status_OK); response.Header != nil {
			t.Errorf("%s: %v", what, response)
		}
	}
	responses, err := p.read(within(t), &pb.ReadRequest{Journal: ledByGo, EndOffset: 11, Block: true})
	if err != nil || string(content(responses)) != "firstsecond" {
		t.Fatalf("read of the replica: %q %v", content(responses), err)
	}
	// A roll-back; then proposals that contradict the spool, of which the replica tells what it has, and goes on.
	sends(&pb.ReplicateRequest{Content: []byte("never")}, &pb.ReplicateRequest{Proposal: fragment(5, 11, "second"), Registers: labels("author", "go"), Acknowledge: true})
	receives("a roll-back", pb.Status_OK)
	sends(&pb.ReplicateRequest{Proposal: fragment(5, 11, "other"), Registers: labels("author", "go"), Acknowledge: true})
	mismatch := receives("another sum", pb.Status_PROPOSAL_MISMATCH)
	if !proto.Equal(mismatch.Fragment, fragment(5, 11, "second")) || !proto.Equal(mismatch.Registers, labels("author", "go")) {
		t.Errorf("another sum: %v", mismatch)
	}
	sends(&pb.ReplicateRequest{Proposal: fragment(5, 11, "second"), Registers: none, Acknowledge: true})
	receives("other registers", pb.Status_PROPOSAL_MISMATCH)
	// One that is beyond it rolls it there, whatever the answer.
	sends(&pb.ReplicateRequest{Proposal: fragment(100, 200, "x"), Registers: none, Acknowledge: true})
	if ahead := receives("a proposal ahead", pb.Status_PROPOSAL_MISMATCH); ahead.Fragment.Begin != 200 || ahead.Fragment.End != 200 {
		t.Errorf("a proposal ahead: %v", ahead)
	}
	sends(&pb.ReplicateRequest{Proposal: fragment(200, 200, ""), Registers: none, Acknowledge: true})
	receives("the roll to it", pb.Status_OK)
	// The half-closed stream ends plainly, and lets go of the spool.
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Fatalf("a half-closed stream: %v", err)
	}
	for what, c := range map[string]struct {
		requests []*pb.ReplicateRequest
		status   pb.Status
		text     string
	}{
		"without header":               {[]*pb.ReplicateRequest{{Proposal: fragment(0, 0, ""), Registers: none, Acknowledge: true}}, 0, "expected first ReplicateRequest to have Header"},
		"content that is out of order": {[]*pb.ReplicateRequest{opening(), {Content: []byte("x"), ContentDelta: 7}}, 0, "invalid ContentDelta (7; expected 0)"},
		"another route": {[]*pb.ReplicateRequest{func() *pb.ReplicateRequest {
			request := opening()
			request.Header.Route.Primary = 1
			return request
		}()}, pb.Status_WRONG_ROUTE, ""},
		"another journal": {[]*pb.ReplicateRequest{func() *pb.ReplicateRequest {
			request := opening()
			request.DeprecatedJournal, request.Proposal.Journal = "interop/peers/absent", "interop/peers/absent"
			return request
		}()}, pb.Status_JOURNAL_NOT_FOUND, ""},
		"for another process": {[]*pb.ReplicateRequest{func() *pb.ReplicateRequest {
			request := opening()
			request.Header.ProcessId.Suffix = "elsewhere"
			return request
		}()}, 0, `request ProcessId doesn't match our own`},
	} {
		stream, err := p.journal.Replicate(within(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, request := range c.requests {
			if err := stream.Send(request); err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
		response, err := stream.Recv()
		for err == nil && c.text != "" {
			_, err = stream.Recv()
		}
		switch {
		case c.text != "":
			if status.Code(err) != codes.Unknown || !strings.Contains(status.Convert(err).Message(), c.text) {
				t.Errorf("%s: %v", what, err)
			}
		case err != nil || response.Status != c.status || response.Header == nil:
			t.Errorf("%s: %v %v, expected %v", what, response, err, c.status)
		default:
			if _, err := stream.Recv(); err != io.EOF {
				t.Errorf("%s: the stream goes on with %v", what, err)
			}
		}
	}
}

func proxied(t *testing.T) {
	p := together(t).begin(t)
	one := spec(ofGo, pb.CompressionCodec_NONE)
	response, err := p.journal.Apply(within(t), &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{{Upsert: one}}})
	if err != nil || response.Status != pb.Status_OK {
		t.Fatalf("Apply: %v %v", response, err)
	}
	if keys := p.assigned(t, ofGo, 1); len(keys) != 1 || keys["zone-a#of-go#0"] != "" {
		t.Fatalf("assignments: %q", keys)
	}
	header := func(from *pb.Header) *pb.Header {
		mine := proto.CloneOf(from)
		mine.ProcessId = p.peer.id
		return mine
	}
	received := make(chan []*pb.AppendRequest, 1)
	p.peer.mu.Lock()
	p.peer.onAppend = func(stream pb.Journal_AppendServer) error {
		var requests []*pb.AppendRequest
		var all []byte
		for {
			request, err := stream.Recv()
			if err == io.EOF {
				break
			} else if err != nil {
				return err
			}
			requests = append(requests, request)
			all = append(all, request.Content...)
		}
		received <- requests
		if string(all) == "fail" {
			return status.Error(codes.Unavailable, "the primary is on its way out")
		}
		return stream.SendAndClose(&pb.AppendResponse{
			Header: header(requests[0].Header), Registers: labels("author", "go"), TotalChunks: 77,
			Commit: &pb.Fragment{Journal: ofGo, Begin: 1000, End: 1000 + int64(len(all)), Sum: sum(all), CompressionCodec: pb.CompressionCodec_NONE},
		})
	}
	p.peer.onRead = func(request *pb.ReadRequest, stream pb.Journal_ReadServer) error {
		if request.Header.GetRoute() == nil || request.DoNotProxy || request.Journal != ofGo {
			return fmt.Errorf("read: %v", request)
		}
		fragment := &pb.Fragment{Journal: ofGo, Begin: 0, End: 9, Sum: &pb.SHA1Sum{}, CompressionCodec: pb.CompressionCodec_NONE}
		for _, response := range []*pb.ReadResponse{
			{Header: header(request.Header), Offset: request.Offset, WriteHead: 9, Fragment: fragment}, {Offset: request.Offset, Content: []byte("of go")},
		} {
			if err := stream.Send(response); err != nil {
				return err
			}
		}
		return nil
	}
	p.peer.mu.Unlock()
	eventually(t, "the assignment is in the broker's mirror", func() error {
		if listed := p.list(t, include("name", ofGo)).Journals; len(listed) != 1 || listed[0].Route.Primary != 0 {
			return fmt.Errorf("%v", listed)
		}
		return nil
	})
	appended, err := p.append(within(t), &pb.AppendRequest{Journal: ofGo + ";meta", CheckRegisters: include("author", "go"), Offset: 1000}, []byte("con"), []byte("tent"))
	if err != nil || appended.Commit.GetBegin() != 1000 || appended.TotalChunks != 77 || appended.Header.ProcessId.Suffix != "of-go" {
		t.Fatalf("append: %v %v", appended, err)
	}
	// Only the first message has the header, and what the client asked for is as it was.
	requests := <-received
	opening := requests[0]
	if opening.Header.GetProcessId().GetSuffix() != "of-go" || opening.Header.Route.Primary != 0 || opening.Header.Route.Endpoints[0] != p.peer.endpoint || opening.Header.Etcd.Revision <= 0 ||
		opening.DoNotProxy || opening.Offset != 1000 || !proto.Equal(opening.CheckRegisters, include("author", "go")) || !strings.HasPrefix(opening.Journal, ofGo) {
		t.Errorf("the opening: %v", opening)
	}
	for _, request := range requests[1:] {
		if request.Header != nil || request.Journal != "" {
			t.Errorf("a message after the opening: %v", request)
		}
	}
	if last := requests[len(requests)-1]; len(last.Content) != 0 {
		t.Errorf("the last message: %v", last)
	}
	_, err = p.append(within(t), &pb.AppendRequest{Journal: ofGo}, []byte("fail"))
	<-received
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the primary is on its way out") {
		t.Errorf("an append whose primary fails: %v", err)
	}
	// Who asks not to be proxied is told where to go.
	refused, err := p.append(within(t), &pb.AppendRequest{Journal: ofGo, DoNotProxy: true})
	if err != nil || refused.Status != pb.Status_NOT_JOURNAL_PRIMARY_BROKER || refused.Header.Route.Endpoints[0] != p.peer.endpoint || refused.Header.ProcessId.Suffix != "courant" {
		t.Errorf("an append that is not proxied: %v %v", refused, err)
	}
	responses, err := p.read(within(t), &pb.ReadRequest{Journal: ofGo, Offset: 4})
	if err != nil || string(content(responses)) != "of go" || responses[0].Header.ProcessId.Suffix != "of-go" || responses[0].Offset != 4 {
		t.Errorf("a proxied read: %v %v", responses, err)
	}
	responses, err = p.read(within(t), &pb.ReadRequest{Journal: ofGo, DoNotProxy: true})
	if err != nil || len(responses) != 1 || responses[0].Status != pb.Status_NOT_JOURNAL_BROKER {
		t.Errorf("a read that is not proxied: %v %v", responses, err)
	}
}

func replicaDies(t *testing.T) {
	p := together(t).begin(t)
	p.mustAppend(t, ledByCourant, []byte("before"))
	// Its connections break, and nobody answers there any more. Etcd does not know yet.
	p.peer.server.Stop()
	for range 3 {
		ctx, cancel := context.WithTimeout(within(t), 5*time.Second)
		response, err := p.append(ctx, &pb.AppendRequest{Journal: ledByCourant}, []byte("x"))
		cancel()
		if code := status.Code(err); err == nil || code != codes.Unavailable && code != codes.DeadlineExceeded {
			t.Fatalf("while a replica is dead: %v %v", response, err)
		}
	}
	if _, err := p.etcd.Revoke(within(t), p.peer.lease); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the journal is known to have too few brokers", func() error {
		ctx, cancel := context.WithTimeout(within(t), 5*time.Second)
		defer cancel()
		response, err := p.append(ctx, &pb.AppendRequest{Journal: ledByCourant}, []byte("x"))
		if err != nil || response.Status != pb.Status_INSUFFICIENT_JOURNAL_BROKERS {
			return fmt.Errorf("%v %v", response, err)
		}
		return nil
	})
	// With one replica wanted it goes on; what was acknowledged is there.
	response, err := p.journal.Apply(within(t), &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{{ExpectModRevision: -1, Upsert: spec(ledByCourant, pb.CompressionCodec_SNAPPY)}}})
	if err != nil || response.Status != pb.Status_OK {
		t.Fatalf("Apply: %v %v", response, err)
	}
	p.awaitPrimary(t, ledByCourant)
	after := p.mustAppend(t, ledByCourant, []byte("after"))
	responses, err := p.read(within(t), &pb.ReadRequest{Journal: ledByCourant, Offset: after.Commit.Begin, EndOffset: after.Commit.End, Block: true})
	if err != nil || string(content(responses)) != "after" {
		t.Fatalf("read: %q %v", content(responses), err)
	}
}
