package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "interop/gen/protocol"
)

func TestAppend(t *testing.T) {
	t.Parallel()
	verify(t, "Append: spans, digests, chunk counts and offsets of commits", grpcGo, appendCommits)
	verify(t, "Append: registers are united, subtracted, checked and answered", grpcGo, appendRegisters)
	verify(t, "Append: journals are suspended, refuse or resume, by each mode", grpcGo, appendSuspend)
	verify(t, "Append: status codes and texts of malformed streams", grpcGo, appendMalformed)
	verify(t, "Append: a cancelled stream leaves no byte, a slow one holds nobody", grpcGo, appendCancelled)
	verify(t, "Append: 64 MiB in chunks of 1 MiB, and chunks at the message limit", grpcGo, appendLarge)
	verify(t, "Append: 8 streams of one connection at once, each span whole", grpcGo, appendConcurrent)
	verify(t, "unknown fields are passed over, absent fields are defaults", with(grpcGo, protobuf), unknownFields)
}

func TestKeepAlive(t *testing.T) {
	t.Parallel()
	verify(t, "a client's keep-alive pings: silent streams stay", grpcGo, keepAlive)
}

func appendCommits(t *testing.T) {
	b, name := alone(t), "interop/append/commits"
	b.create(t, spec(name, pb.CompressionCodec_SNAPPY))
	first := b.mustAppend(t, name, []byte("hello "), []byte("world"))
	commit := first.Commit
	if commit.Journal != name || commit.Begin != 0 || commit.End != 11 || !proto.Equal(commit.Sum, sum([]byte("hello world"))) {
		t.Fatalf("first commit: %v", commit)
	}
	if commit.CompressionCodec != pb.CompressionCodec_SNAPPY || first.TotalChunks != 3 || first.Registers == nil {
		t.Fatalf("first response: %v", first)
	}
	header := first.Header
	if header.ProcessId.Zone != "local" || header.Etcd.ClusterId == 0 || header.Etcd.MemberId == 0 || header.Etcd.Revision <= 0 || header.Etcd.RaftTerm == 0 {
		t.Fatalf("header: %v", header)
	}
	if len(header.Route.Members) != 1 || header.Route.Primary != 0 || header.Route.Endpoints[0] != b.endpoint {
		t.Fatalf("route: %v", header.Route)
	}
	// Metadata after a semicolon is passed over, and not part of the name in responses.
	meta, err := b.append(within(t), &pb.AppendRequest{Journal: name + ";a=meta/data", Offset: 11}, []byte("!"))
	if err != nil || meta.Status != pb.Status_OK || meta.Commit.Journal != name || meta.Commit.Begin != 11 || meta.Commit.End != 12 {
		t.Fatalf("with metadata and offset: %v %v", meta, err)
	}
	empty := b.mustAppend(t, name)
	if empty.Commit.Begin != 12 || empty.Commit.End != 12 || !proto.Equal(empty.Commit.Sum, sum(nil)) || empty.TotalChunks != 1 {
		t.Fatalf("empty append: %v", empty)
	}
	wrong, err := b.append(within(t), &pb.AppendRequest{Journal: name, Offset: 5}, []byte("x"))
	if err != nil || wrong.Status != pb.Status_WRONG_APPEND_OFFSET || wrong.Commit != nil || wrong.Header == nil {
		t.Fatalf("wrong offset: %v %v", wrong, err)
	}
	absent, err := b.append(within(t), &pb.AppendRequest{Journal: "interop/append/absent"})
	if err != nil || absent.Status != pb.Status_JOURNAL_NOT_FOUND || absent.Header.Route.Primary != -1 || len(absent.Header.Route.Members) != 0 {
		t.Fatalf("absent journal: %v %v", absent, err)
	}
	readOnly := spec("interop/append/read-only", pb.CompressionCodec_NONE)
	readOnly.Flags = uint32(pb.JournalSpec_O_RDONLY)
	b.create(t, readOnly)
	refused, err := b.append(within(t), &pb.AppendRequest{Journal: readOnly.Name}, []byte("x"))
	if err != nil || refused.Status != pb.Status_NOT_ALLOWED {
		t.Fatalf("content for a read-only journal: %v %v", refused, err)
	}
}

func appendRegisters(t *testing.T) {
	b, name := alone(t), "interop/append/registers"
	b.create(t, spec(name, pb.CompressionCodec_NONE))
	// Empty registers match any selector.
	response, err := b.append(within(t), &pb.AppendRequest{
		Journal: name, CheckRegisters: include("author", "nobody"), UnionRegisters: labels("author", "one", "epoch", "1"),
	}, []byte("a"))
	if err != nil || response.Status != pb.Status_OK || !proto.Equal(response.Registers, labels("author", "one", "epoch", "1")) {
		t.Fatalf("union: %v %v", response, err)
	}
	response, err = b.append(within(t), &pb.AppendRequest{Journal: name, CheckRegisters: include("author", "two")}, []byte("b"))
	if err != nil || response.Status != pb.Status_REGISTER_MISMATCH || !proto.Equal(response.Registers, labels("author", "one", "epoch", "1")) {
		t.Fatalf("mismatch: %v %v", response, err)
	}
	// Subtraction comes first; united values replace all of their name.
	response, err = b.append(within(t), &pb.AppendRequest{
		Journal: name, CheckRegisters: include("author", "one"), SubtractRegisters: labels("epoch", "1"), UnionRegisters: labels("author", "two"),
	}, []byte("c"))
	if err != nil || response.Status != pb.Status_OK || !proto.Equal(response.Registers, labels("author", "two")) || response.Commit.Begin != 1 {
		t.Fatalf("subtract and union: %v %v", response, err)
	}
	_, err = b.append(within(t), &pb.AppendRequest{Journal: name, UnionRegisters: &pb.LabelSet{}})
	wantError(t, "registers without content", err, codes.Unknown, "append stream: register modification requires non-empty Append")
}

func appendSuspend(t *testing.T) {
	b, name, empty := alone(t), "interop/append/suspend", "interop/append/suspend-empty"
	b.create(t, spec(name, pb.CompressionCodec_NONE), spec(empty, pb.CompressionCodec_NONE))
	b.mustAppend(t, name, []byte("content"))
	ask := func(name string, mode pb.AppendRequest_Suspend, want pb.Status, chunks ...[]byte) *pb.AppendResponse {
		t.Helper()
		response, err := b.append(within(t), &pb.AppendRequest{Journal: name, Suspend: mode}, chunks...)
		if err != nil || response.Status != want {
			t.Fatalf("%s of %s: %v %v, expected %v", mode, name, response, err, want)
		}
		return response
	}
	level := func(name string, want pb.JournalSpec_Suspend_Level, offset int64) {
		t.Helper()
		suspend := b.list(t, include("name", name)).Journals[0].Spec.GetSuspend()
		if suspend.GetLevel() != want || suspend.GetOffset() != offset {
			t.Fatalf("%s is suspended as %v, expected %v at %d", name, suspend, want, offset)
		}
	}
	// With content a journal keeps one replica, which reads are served from.
	ask(name, pb.AppendRequest_SUSPEND_NOW, pb.Status_SUSPENDED)
	level(name, pb.JournalSpec_Suspend_PARTIAL, 7)
	ask(name, pb.AppendRequest_SUSPEND_NO_RESUME, pb.Status_SUSPENDED)
	ask(name, pb.AppendRequest_SUSPEND_KEEP, pb.Status_OK)
	ask(name, pb.AppendRequest_SUSPEND_KEEP, pb.Status_NOT_ALLOWED, []byte("x"))
	level(name, pb.JournalSpec_Suspend_PARTIAL, 7)
	if responses, err := b.read(within(t), &pb.ReadRequest{Journal: name}); err != nil || string(content(responses)) != "content" {
		t.Fatalf("read of a suspended journal: %v %v", responses, err)
	}
	if resumed := ask(name, pb.AppendRequest_SUSPEND_RESUME, pb.Status_OK, []byte("more")); resumed.Commit.Begin != 7 {
		t.Fatalf("resumed: %v", resumed)
	}
	level(name, pb.JournalSpec_Suspend_NONE, 7)
	// Without content there is nothing to serve.
	ask(empty, pb.AppendRequest_SUSPEND_NOW, pb.Status_SUSPENDED)
	level(empty, pb.JournalSpec_Suspend_FULL, 0)
	ask(empty, pb.AppendRequest_SUSPEND_NO_RESUME, pb.Status_SUSPENDED)
	responses, err := b.read(within(t), &pb.ReadRequest{Journal: empty})
	if err != nil || len(responses) != 1 || responses[0].Status != pb.Status_SUSPENDED {
		t.Fatalf("read of a journal without replicas: %v %v", responses, err)
	}
	b.awaitPrimary(t, empty) // An append resumes it.
	level(empty, pb.JournalSpec_Suspend_NONE, 0)
}

// wantError demands a gRPC error of a code and an exact text.
func wantError(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	got, ok := status.FromError(err)
	if err == nil || !ok || got.Code() != code || got.Message() != text {
		t.Errorf("%s: expected %v %q, found %v", what, code, text, err)
	}
}

func appendMalformed(t *testing.T) {
	b, name := alone(t), "interop/append/malformed"
	b.create(t, spec(name, pb.CompressionCodec_NONE))
	opening, chunk, commit := &pb.AppendRequest{Journal: name}, &pb.AppendRequest{Content: []byte("lost")}, &pb.AppendRequest{}
	for _, c := range []struct {
		what     string
		messages []*pb.AppendRequest
		text     string
	}{
		{"no message", nil, "EOF"},
		{"half-closed before the commit", []*pb.AppendRequest{opening, chunk}, "append stream: unexpected EOF"},
		{"half-closed after the opening", []*pb.AppendRequest{opening}, "append stream: unexpected EOF"},
		{"content after the commit", []*pb.AppendRequest{opening, chunk, commit, chunk}, "append stream: expected EOF after empty Content chunk"},
		{"two openings", []*pb.AppendRequest{opening, opening}, "append stream: expected Content chunk"},
		{"a name with a leading slash", []*pb.AppendRequest{{Journal: "/invalid/name"}}, "Journal: cannot begin with '/' (/invalid/name)"},
		{"a name that is too short", []*pb.AppendRequest{{Journal: "abc"}}, "Journal: invalid length (3; expected 4 <= length <= 512)"},
	} {
		stream, err := b.journal.Append(within(t))
		if err != nil {
			t.Fatal(err)
		}
		_, err = send(stream, c.messages...)
		wantError(t, c.what, err, codes.Unknown, c.text)
	}
	// An empty name is well-formed, and no journal's.
	response, err := b.append(within(t), &pb.AppendRequest{})
	if err == nil && response.Status != pb.Status_JOURNAL_NOT_FOUND {
		t.Errorf("an empty name: %v", response)
	} else if err != nil {
		t.Errorf("an empty name: %v", err)
	}
	if after := b.mustAppend(t, name, []byte("kept")); after.Commit.Begin != 0 {
		t.Errorf("malformed streams left bytes: %v", after.Commit)
	}
}

const underflow = "append stream: client stream didn't sustain the minimum append data rate"

func appendCancelled(t *testing.T) {
	b, name := alone(t), "interop/append/cancelled"
	b.create(t, spec(name, pb.CompressionCodec_NONE))
	ctx, cancel := context.WithCancel(within(t))
	slow, err := b.journal.Append(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range []*pb.AppendRequest{{Journal: name}, {Content: []byte("never committed")}} {
		if err := slow.Send(message); err != nil {
			t.Fatal(err)
		}
	}
	// While that stream is open and silent, others are served.
	if other := b.mustAppend(t, name, []byte("other")); other.Commit.Begin != 0 || other.Commit.End != 5 {
		t.Fatalf("beside a slow append: %v", other.Commit)
	}
	cancel()
	// On a busy machine it may have fallen below the minimum rate before.
	if err := slow.RecvMsg(&pb.AppendResponse{}); status.Code(err) != codes.Canceled && status.Convert(err).Message() != underflow {
		t.Fatalf("the cancelled stream: %v", err)
	}
	// A client whose deadline passes while it has sent no commit gets what its library says of that.
	short, stop := context.WithTimeout(within(t), 200*time.Millisecond)
	defer stop()
	late, err := b.journal.Append(short)
	if err != nil {
		t.Fatal(err)
	}
	if err := late.Send(&pb.AppendRequest{Journal: name}); err != nil {
		t.Fatal(err)
	}
	if err := late.RecvMsg(&pb.AppendResponse{}); status.Code(err) != codes.DeadlineExceeded && status.Convert(err).Message() != underflow {
		t.Fatalf("a stream past its deadline: %v", err)
	}
	if after := b.mustAppend(t, name, []byte("!")); after.Commit.Begin != 5 {
		t.Fatalf("after both: %v", after.Commit)
	}
	// A client that sends nothing for long falls below the minimum rate.
	stalled, err := b.journal.Append(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stalled.Send(&pb.AppendRequest{Journal: name}); err != nil {
		t.Fatal(err)
	}
	wantError(t, "a stalled client", stalled.RecvMsg(&pb.AppendResponse{}), codes.Unknown, underflow)
}

func appendLarge(t *testing.T) {
	b, name := alone(t), "interop/append/large"
	large := spec(name, pb.CompressionCodec_NONE)
	large.Fragment.Length = 1 << 24
	b.create(t, large)
	// One MiB of noise, sent 64 times: what is read back must be exactly that.
	chunk := make([]byte, 1<<20)
	if _, err := rand.Read(chunk); err != nil {
		t.Fatal(err)
	}
	chunks := make([][]byte, 64)
	for i := range chunks {
		chunks[i] = chunk
	}
	response := b.mustAppend(t, name, chunks...)
	if response.Commit.End != 64<<20 || response.TotalChunks != 65 {
		t.Fatalf("64 MiB: %v", response)
	}
	// Windows as Go clients of this protocol set them, and as grpc-go has them: both read it whole.
	for _, options := range [][]grpc.DialOption{
		nil,
		{grpc.WithInitialConnWindowSize(1<<31 - 1)},
		{grpc.WithInitialWindowSize(65535), grpc.WithInitialConnWindowSize(65535)},
	} {
		conn, err := grpc.NewClient(b.address, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := pb.NewJournalClient(conn).Read(within(t), &pb.ReadRequest{Journal: name, EndOffset: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		for offset := int64(0); ; {
			response, err := stream.Recv()
			if err == io.EOF {
				if offset != 64<<20 {
					t.Fatalf("the read ended at %d", offset)
				}
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if len(response.Content) > 0 && response.Offset != offset {
				t.Fatalf("content of offset %d, expected %d", response.Offset, offset)
			}
			for rest := response.Content; len(rest) > 0; {
				at := int(offset % (1 << 20))
				n := min(len(rest), 1<<20-at)
				if !bytes.Equal(rest[:n], chunk[at:at+n]) {
					t.Fatalf("content differs near offset %d", offset)
				}
				rest, offset = rest[n:], offset+int64(n)
			}
		}
		conn.Close()
	}
	// The largest message that is taken has 4 MiB; one more byte is refused by the library's own code.
	most := 4<<20 - len(frame(4<<20))
	if response, err := b.append(within(t), &pb.AppendRequest{Journal: name}, make([]byte, most)); err != nil || response.Status != pb.Status_OK {
		t.Fatalf("a message of 4 MiB: %v %v", response, err)
	}
	if _, err := b.append(within(t), &pb.AppendRequest{Journal: name}, make([]byte, most+1)); err == nil {
		t.Fatal("a message of more than 4 MiB was taken")
	}
}

// frame is what precedes content of n bytes in its message.
func frame(n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, 4, protowire.BytesType), uint64(n))
}

func appendConcurrent(t *testing.T) {
	b, name := alone(t), "interop/append/concurrent"
	b.create(t, spec(name, pb.CompressionCodec_GZIP))
	const clients, appends = 8, 25
	var mu sync.Mutex
	var wait sync.WaitGroup
	spans := map[int64][]byte{}
	failed := make(chan error, clients)
	for client := range clients {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range appends {
				text := []byte(fmt.Sprintf("client %d append %d\n", client, i))
				response, err := b.append(within(t), &pb.AppendRequest{Journal: name}, text[:5], text[5:])
				if err != nil || response.Status != pb.Status_OK || response.Commit.End-response.Commit.Begin != int64(len(text)) {
					failed <- fmt.Errorf("%s: %v %v", text, response, err)
					return
				}
				mu.Lock()
				spans[response.Commit.Begin] = text
				mu.Unlock()
			}
		}()
	}
	wait.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	responses, err := b.read(within(t), &pb.ReadRequest{Journal: name})
	if err != nil {
		t.Fatal(err)
	}
	all := content(responses)
	for begin, text := range spans {
		if !bytes.HasPrefix(all[begin:], text) {
			t.Fatalf("span at %d is not %q", begin, text)
		}
	}
	if len(spans) != clients*appends {
		t.Fatalf("%d spans, expected %d", len(spans), clients*appends)
	}
}

// grpc-go pings every ten seconds at the most. This one does, on a stream which is silent, for long enough to send two.
func keepAlive(t *testing.T) {
	b, name := alone(t), "interop/append/keep-alive"
	b.create(t, spec(name, pb.CompressionCodec_NONE))
	conn, err := grpc.NewClient(b.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := pb.NewJournalClient(conn)
	stream, err := client.Read(within(t), &pb.ReadRequest{Journal: name, Block: true})
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan error, 1)
	go func() {
		_, err := stream.Recv()
		received <- err
	}()
	select {
	case err := <-received:
		t.Fatalf("the stream ended while it was pinged: %v", err)
	case <-time.After(22 * time.Second):
	}
	b.mustAppend(t, name, []byte("x"))
	if err := <-received; err != nil {
		t.Fatalf("the stream after its pings: %v", err)
	}
}

func unknownFields(t *testing.T) {
	b, name := alone(t), "interop/append/unknown"
	b.create(t, spec(name, pb.CompressionCodec_NONE))
	b.mustAppend(t, name, []byte("content"))
	request := &pb.ReadRequest{Journal: name, EndOffset: 3}
	unknown := protowire.AppendTag(nil, 500, protowire.BytesType)
	unknown = protowire.AppendString(unknown, "of a later version")
	unknown = protowire.AppendVarint(protowire.AppendTag(unknown, 501, protowire.VarintType), 7)
	request.ProtoReflect().SetUnknown(unknown)
	responses, err := b.read(within(t), request)
	if err != nil || string(content(responses)) != "con" {
		t.Fatalf("a request with unknown fields: %v %v", responses, err)
	}
	// Nothing that Courant answers is unknown to the protocol, and sub-messages that Go never leaves out are there.
	listed := b.list(t, include("name", name))
	if len(listed.ProtoReflect().GetUnknown()) != 0 || listed.Header.ProcessId == nil || listed.Header.Route == nil || listed.Header.Etcd == nil {
		t.Fatalf("List: %v", listed)
	}
	for _, response := range responses {
		if len(response.ProtoReflect().GetUnknown()) != 0 {
			t.Fatalf("Read: %v", response)
		}
	}
	// Fields written explicitly with their default values, and repeated ones, are taken as protobuf says.
	raw := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "interop/other")
	raw = protowire.AppendString(protowire.AppendTag(raw, 2, protowire.BytesType), name) // The last one counts.
	raw = protowire.AppendVarint(protowire.AppendTag(raw, 3, protowire.VarintType), 0)
	raw = protowire.AppendVarint(protowire.AppendTag(raw, 7, protowire.VarintType), 2)
	explicit := &pb.ReadRequest{}
	explicit.ProtoReflect().SetUnknown(raw)
	responses, err = b.read(within(t), explicit)
	if err != nil || string(content(responses)) != "co" {
		t.Fatalf("explicit defaults: %v %v", responses, err)
	}
}
