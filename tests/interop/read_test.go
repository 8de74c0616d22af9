package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "interop/gen/protocol"
)

func TestRead(t *testing.T) {
	t.Parallel()
	verify(t, "Read: frames, offsets, end offset, metadata only and offset -1", grpcGo, readFrames)
	verify(t, "Read: a blocking reader gets each commit, and ends when cancelled", grpcGo, readBlocking)
	verify(t, "Read: statuses in responses, texts of bad requests", grpcGo, readStatuses)
	verify(t, "Read: deep offsets of stored fragments, in every codec", grpcGo, readDeep)
}

func readFrames(t *testing.T) {
	b, name := alone(t), "interop/read/frames"
	b.create(t, spec(name, pb.CompressionCodec_NONE))
	b.mustAppend(t, name, []byte("0123456789"))
	b.mustAppend(t, name, []byte("abcdef"))
	responses, err := b.read(within(t), &pb.ReadRequest{Journal: name, Offset: 3, EndOffset: 13})
	if err != nil || string(content(responses)) != "3456789abc" {
		t.Fatalf("[3,13): %q %v", content(responses), err)
	}
	offset := int64(3)
	for i, response := range responses {
		if len(response.Content) > 0 {
			// Chunks have an offset and content alone, one after another.
			if response.Offset != offset || response.Header != nil || response.Fragment != nil || response.WriteHead != 0 {
				t.Fatalf("chunk: %v", response)
			}
			offset += int64(len(response.Content))
			continue
		}
		fragment := response.Fragment
		if (response.Header != nil) != (i == 0) || fragment == nil || fragment.Begin > response.Offset || fragment.End <= response.Offset || response.WriteHead < fragment.End {
			t.Fatalf("metadata: %v", response)
		}
	}
	// Metadata alone.
	responses, err = b.read(within(t), &pb.ReadRequest{Journal: name, MetadataOnly: true})
	if err != nil || len(responses) != 1 || responses[0].Status != pb.Status_OK || responses[0].WriteHead != 16 || len(responses[0].Content) != 0 {
		t.Fatalf("metadata only: %v %v", responses, err)
	}
	// The write head.
	responses, err = b.read(within(t), &pb.ReadRequest{Journal: name, Offset: -1})
	if err != nil || len(responses) != 1 || responses[0].Status != pb.Status_OFFSET_NOT_YET_AVAILABLE || responses[0].Offset != 16 || responses[0].WriteHead != 16 {
		t.Fatalf("offset -1: %v %v", responses, err)
	}
	// Without blocking a read ends with the status of the offset that is not there yet, and plainly.
	responses, err = b.read(within(t), &pb.ReadRequest{Journal: name, Offset: 14})
	last := responses[len(responses)-1]
	if err != nil || string(content(responses)) != "ef" || last.Status != pb.Status_OFFSET_NOT_YET_AVAILABLE || last.Offset != 16 {
		t.Fatalf("to the head: %v %v", responses, err)
	}
	// Fragments of the journal as of its first append are one of its own.
	responses, err = b.read(within(t), &pb.ReadRequest{Journal: name, MetadataOnly: true, Offset: 12})
	if err != nil || responses[0].Fragment.Begin != 10 || !proto.Equal(responses[0].Fragment.Sum, sum([]byte("abcdef"))) {
		t.Fatalf("the second fragment: %v %v", responses, err)
	}
}

func readBlocking(t *testing.T) {
	b, name := alone(t), "interop/read/blocking"
	b.create(t, spec(name, pb.CompressionCodec_NONE))
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	stream, err := b.journal.Read(ctx, &pb.ReadRequest{Journal: name, Block: true})
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for i := range 5 {
		text := []byte(fmt.Sprintf("commit %d\n", i))
		b.mustAppend(t, name, text)
		for !bytes.HasSuffix(got, text) {
			response, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if response.Status != pb.Status_OK {
				t.Fatalf("a blocking read: %v", response)
			}
			got = append(got, response.Content...)
		}
	}
	if string(got) != "commit 0\ncommit 1\ncommit 2\ncommit 3\ncommit 4\n" {
		t.Fatalf("read %q", got)
	}
	// From the head, blocking: the first metadata names the head as of the call.
	tail, err := b.journal.Read(ctx, &pb.ReadRequest{Journal: name, Block: true, Offset: -1})
	if err != nil {
		t.Fatal(err)
	}
	// An end offset that is in the future is waited for, and ends the stream.
	end := int64(len(got)) + 4
	ending := make(chan error, 1)
	go func() {
		responses, err := b.read(ctx, &pb.ReadRequest{Journal: name, Block: true, Offset: int64(len(got)), EndOffset: end})
		if err == nil && string(content(responses)) != "tail" {
			err = fmt.Errorf("read %q", content(responses))
		}
		ending <- err
	}()
	b.mustAppend(t, name, []byte("tail of it"))
	if err := <-ending; err != nil {
		t.Fatalf("to an end in the future: %v", err)
	}
	// When the broker has come to the read of the head is not known: append until it answers.
	received := make(chan error, 1)
	go func() {
		first, err := tail.Recv()
		if err == nil && (first.Offset < int64(len(got)) || first.Header == nil) {
			err = fmt.Errorf("from the head: %v", first)
		}
		received <- err
	}()
	eventually(t, "a read of the head is answered", func() error {
		b.mustAppend(t, name, []byte("more"))
		select {
		case err := <-received:
			if err != nil {
				t.Fatal(err)
			}
			return nil
		default:
			return errors.New("not yet")
		}
	})
	cancel()
	for err == nil {
		_, err = stream.Recv()
	}
	wantError(t, "a cancelled read", err, codes.Canceled, "context canceled")
}

func readStatuses(t *testing.T) {
	b := alone(t)
	responses, err := b.read(within(t), &pb.ReadRequest{Journal: "interop/read/absent"})
	if err != nil || len(responses) != 1 || responses[0].Status != pb.Status_JOURNAL_NOT_FOUND || responses[0].Header == nil {
		t.Fatalf("an absent journal: %v %v", responses, err)
	}
	writeOnly := spec("interop/read/write-only", pb.CompressionCodec_NONE)
	writeOnly.Flags = uint32(pb.JournalSpec_O_WRONLY)
	b.create(t, writeOnly)
	responses, err = b.read(within(t), &pb.ReadRequest{Journal: writeOnly.Name})
	if err != nil || len(responses) != 1 || responses[0].Status != pb.Status_NOT_ALLOWED {
		t.Fatalf("a write-only journal: %v %v", responses, err)
	}
	for _, c := range []struct {
		request *pb.ReadRequest
		text    string
	}{
		{&pb.ReadRequest{Journal: "interop/x", Offset: -2}, "invalid Offset (-2; expected -1 <= Offset <= MaxInt64)"},
		{&pb.ReadRequest{Journal: "interop//x"}, "Journal: must be a clean path (interop//x)"},
		{&pb.ReadRequest{Journal: "interop x"}, "Journal: not a valid token (interop x)"},
	} {
		_, err := b.read(within(t), c.request)
		wantError(t, c.request.String(), err, codes.Unknown, c.text)
	}
	stream, err := b.journal.Read(within(t), &pb.ReadRequest{Journal: "interop/x", Header: &pb.Header{
		ProcessId: &pb.ProcessSpec_ID{}, Route: &pb.Route{Primary: -1}, Etcd: &pb.Header_Etcd{ClusterId: 1, MemberId: 2, Revision: 3, RaftTerm: 4},
	}})
	if err == nil {
		_, err = stream.Recv()
	}
	own := b.list(t, include("name", "interop/none")).Header.Etcd.ClusterId
	wantError(t, "the header of another cluster", err, codes.Unknown,
		fmt.Sprintf("request Etcd ClusterId doesn't match our own (%d vs %d)", 1, own))
}

func readDeep(t *testing.T) {
	b := alone(t)
	var specs []*pb.JournalSpec
	for _, codec := range codecs {
		deep := spec("interop/read/deep-"+codec.String(), codec)
		deep.Fragment.Length = 1 << 14
		specs = append(specs, deep)
	}
	b.create(t, specs...)
	want := lines(8 << 10)
	for _, spec := range specs {
		b.appendLines(t, spec.Name, want)
	}
	for _, spec := range specs {
		b.awaitStored(t, spec.Name, 3)
		for _, offset := range []int{0, 1, 4095, 1<<14 + 3, len(want) / 2, len(want) - 7} {
			stream, err := b.journal.Read(within(t), &pb.ReadRequest{Journal: spec.Name, Offset: int64(offset), Block: true})
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			for len(got) < len(want)-offset {
				response, err := stream.Recv()
				if err == io.EOF || err != nil {
					t.Fatalf("%s from %d: %v after %d bytes", spec.Name, offset, err, len(got))
				}
				got = append(got, response.Content...)
			}
			if !bytes.Equal(got, want[offset:]) {
				t.Fatalf("%s from %d: content differs", spec.Name, offset)
			}
		}
	}
}
