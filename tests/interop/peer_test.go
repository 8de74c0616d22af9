package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	gogoproto "github.com/gogo/protobuf/proto"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	gogopb "interop/gen/gogo/protocol"
	pb "interop/gen/protocol"
)

// A broker in Go, as far as its tests go: it holds the spools of what is replicated to it (journal protocol §6.4), and hands
// requests that are proxied to it to the test.
type peer struct {
	pb.UnimplementedJournalServer

	id       *pb.ProcessSpec_ID
	endpoint string
	server   *grpc.Server
	lease    clientv3.LeaseID

	mu     sync.Mutex
	spools map[string]*spool
	// What was received of each journal, streams one after another.
	received map[string][]*pb.ReplicateRequest
	// Closed to end all streams, as a peer that dies does.
	broken chan struct{}
	// Answers to proxied requests.
	onAppend func(pb.Journal_AppendServer) error
	onRead   func(*pb.ReadRequest, pb.Journal_ReadServer) error
}

// What a replica holds of a journal: the content of its open fragment, and what is not committed yet.
type spool struct {
	fragment  *pb.Fragment
	registers *pb.LabelSet
	content   []byte
	delta     []byte
}

// startPeer serves a peer and announces it in the etcd of a broker.
func startPeer(b *broker, zone, suffix string, limit uint32) (*peer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &peer{
		id: &pb.ProcessSpec_ID{Zone: zone, Suffix: suffix}, endpoint: "http://" + listener.Addr().String(),
		spools: map[string]*spool{}, received: map[string][]*pb.ReplicateRequest{}, broken: make(chan struct{}),
	}
	p.server = grpc.NewServer()
	pb.RegisterJournalServer(p.server, p)
	go func() { _ = p.server.Serve(listener) }()
	value, err := gogoproto.Marshal(&gogopb.BrokerSpec{
		ProcessSpec:  &gogopb.ProcessSpec{Id: &gogopb.ProcessSpec_ID{Zone: zone, Suffix: suffix}, Endpoint: p.endpoint},
		JournalLimit: limit,
	})
	if err != nil {
		return nil, err
	}
	lease, err := b.etcd.Grant(context.Background(), 120)
	if err != nil {
		return nil, err
	}
	p.lease = lease.ID
	_, err = b.etcd.Put(context.Background(), b.prefix+"/members/"+zone+"#"+suffix, string(value), clientv3.WithLease(lease.ID))
	return p, err
}

// Replicate is the replica's side.
func (p *peer) Replicate(stream pb.Journal_ReplicateServer) error {
	p.mu.Lock()
	broken := p.broken
	p.mu.Unlock()
	requests, failed := make(chan *pb.ReplicateRequest), make(chan error, 1)
	go func() {
		for {
			request, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- request:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	journal := ""
	for first := true; ; {
		select {
		case <-broken:
			return status.Error(codes.Unavailable, "the peer is on its way out")
		case err := <-failed:
			if journal != "" {
				p.mu.Lock()
				p.spools[journal].delta = nil // What was not committed is rolled back.
				p.mu.Unlock()
			}
			if err == io.EOF {
				return nil
			}
			return err
		case request := <-requests:
			if first && request.Header == nil {
				return errors.New("expected first ReplicateRequest to have Header")
			}
			if request.Proposal != nil {
				journal = request.Proposal.Journal
			}
			response, err := p.apply(journal, request)
			if err != nil {
				return err
			}
			if response == nil {
				continue
			}
			if first {
				response.Header, first = proto.CloneOf(request.Header), false
				response.Header.ProcessId = p.id
			}
			if err := stream.Send(response); err != nil {
				return err
			}
		}
	}
}

// apply takes one message to the spool, and gives the answer if one is asked for.
func (p *peer) apply(journal string, request *pb.ReplicateRequest) (*pb.ReplicateResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.received[journal] = append(p.received[journal], request)
	s := p.spools[journal]
	if s == nil {
		s = &spool{fragment: &pb.Fragment{Journal: journal, Sum: &pb.SHA1Sum{}, CompressionCodec: pb.CompressionCodec_NONE}, registers: &pb.LabelSet{}}
		p.spools[journal] = s
	}
	if request.Proposal == nil {
		if request.ContentDelta != int64(len(s.delta)) {
			return nil, fmt.Errorf("invalid ContentDelta (%d; expected %d)", request.ContentDelta, len(s.delta))
		}
		s.delta = append(s.delta, request.Content...)
		return nil, nil
	}
	if s.propose(request.Proposal, request.Registers) {
		if request.Acknowledge {
			return &pb.ReplicateResponse{}, nil
		}
		return nil, nil
	}
	if !request.Acknowledge {
		return nil, errors.New("no ack requested but status != OK: PROPOSAL_MISMATCH")
	}
	return &pb.ReplicateResponse{Status: pb.Status_PROPOSAL_MISMATCH, Fragment: proto.CloneOf(s.fragment), Registers: proto.CloneOf(s.registers)}, nil
}

// propose takes a proposal, and says whether the spool is as it wants.
func (s *spool) propose(proposal *pb.Fragment, registers *pb.LabelSet) bool {
	if registers == nil {
		registers = &pb.LabelSet{}
	}
	end := s.fragment.End
	if proposal.End > end+int64(len(s.delta)) || proposal.End == end && proposal.Begin == proposal.End {
		if proposal.End > end {
			s.registers = registers
		}
		s.fragment = &pb.Fragment{Journal: proposal.Journal, Begin: proposal.End, End: proposal.End, Sum: &pb.SHA1Sum{}, CompressionCodec: proposal.CompressionCodec}
		s.content, s.delta = nil, nil
	}
	if proto.Equal(s.fragment, proposal) && proto.Equal(s.registers, registers) {
		s.delta = nil
		return true
	}
	extended := proto.CloneOf(s.fragment)
	extended.End += int64(len(s.delta))
	extended.Sum = sum(append(bytes.Clone(s.content), s.delta...))
	if len(s.delta) == 0 || !proto.Equal(extended, proposal) {
		return false
	}
	s.fragment, s.registers, s.content, s.delta = extended, registers, append(s.content, s.delta...), nil
	return true
}

// Append is of requests that are proxied.
func (p *peer) Append(stream pb.Journal_AppendServer) error {
	p.mu.Lock()
	answer := p.onAppend
	p.mu.Unlock()
	if answer == nil {
		return errors.New("nobody expects an append")
	}
	return answer(stream)
}

// Read is of requests that are proxied.
func (p *peer) Read(request *pb.ReadRequest, stream pb.Journal_ReadServer) error {
	p.mu.Lock()
	answer := p.onRead
	p.mu.Unlock()
	if answer == nil {
		return errors.New("nobody expects a read")
	}
	return answer(request, stream)
}

// fail ends all replication streams; `change` is made to the spool of a journal before the next one begins.
func (p *peer) fail(journal string, change func(*spool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p.spools[journal])
	p.received[journal] = nil
	close(p.broken)
	p.broken = make(chan struct{})
}

// holds is a copy of a journal's spool, and of what was received of it.
func (p *peer) holds(journal string) (spool, []*pb.ReplicateRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spools[journal] == nil {
		return spool{}, nil
	}
	s := p.spools[journal]
	return spool{proto.CloneOf(s.fragment), proto.CloneOf(s.registers), bytes.Clone(s.content), bytes.Clone(s.delta)}, append([]*pb.ReplicateRequest(nil), p.received[journal]...)
}
