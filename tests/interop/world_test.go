package interop

import (
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "interop/gen/protocol"

	"google.golang.org/protobuf/types/known/durationpb"
)

// A broker, and clients of it and of its etcd.
type broker struct {
	process     *process
	endpoint    string // http://host:port
	address     string // host:port
	dir         string // Working directory; data and fragments lie below it.
	fragments   string
	conn        *grpc.ClientConn
	journal     pb.JournalClient
	etcd        *clientv3.Client
	etcdAddress string
	prefix      string
}

// shared starts something once, for every test that asks for it.
func shared[T any](begin func() (T, error)) func(t *testing.T) T {
	once := sync.OnceValues(begin)
	return func(t *testing.T) T {
		t.Helper()
		value, err := once()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// alone is a broker with its embedded etcd.
var alone = shared(func() (*broker, error) { return startBroker("", nil) })

// onEtcd is a broker on a real etcd.
var onEtcd = shared(func() (*broker, error) { return onEtcdOf("courant-two") })

func onEtcdOf(id string) (*broker, error) {
	address, err := startEtcd()
	if err != nil {
		return nil, err
	}
	return startBroker(address, []string{"--broker.id=" + id, "--broker.zone=zone-a"})
}

// startEtcd starts a real etcd and returns its URL.
func startEtcd() (string, error) {
	dir, err := directory()
	if err != nil {
		return "", err
	}
	client, err := freePort()
	if err != nil {
		return "", err
	}
	peer, err := freePort()
	if err != nil {
		return "", err
	}
	url, peers := fmt.Sprintf("http://127.0.0.1:%d", client), fmt.Sprintf("http://127.0.0.1:%d", peer)
	_, err = start("etcd", []string{"--data-dir", dir + "/etcd", "--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default=" + peers}, dir)
	if err != nil {
		return "", err
	}
	return url, awaitURL(url + "/health")
}

// startBroker starts `courant serve` and waits until it says where it serves. Without an etcd it embeds its own.
func startBroker(etcd string, further []string, env ...string) (*broker, error) {
	dir, err := directory()
	if err != nil {
		return nil, err
	}
	b := &broker{dir: dir, fragments: dir + "/fragments", prefix: "/gazette/cluster"}
	if err := os.Mkdir(b.fragments, 0o755); err != nil {
		return nil, err
	}
	args := append([]string{"serve", "--broker.port=0", "--broker.data-dir=data", "--broker.file-root=fragments", "--etcd.lease=5s"}, further...)
	if etcd != "" {
		args = append(args, "--etcd.address="+etcd, "--broker.host=127.0.0.1")
	}
	if b.process, err = start(program("courant"), args, dir, env...); err != nil {
		return nil, err
	}
	if b.endpoint, err = b.process.waitLine(`serving on (http://[^, ]+)`); err != nil {
		return nil, err
	}
	b.address = b.endpoint[len("http://"):]
	if b.conn, err = grpc.NewClient(b.address, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		return nil, err
	}
	b.journal = pb.NewJournalClient(b.conn)
	if b.etcdAddress = etcd; etcd == "" {
		b.etcdAddress = b.endpoint
	}
	b.etcd, err = clientv3.New(clientv3.Config{Endpoints: []string{b.etcdAddress}, DialTimeout: limit, Logger: zap.NewNop()})
	return b, err
}

// awaitURL waits until a URL is answered with 200.
func awaitURL(url string) error {
	var last error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		response, err := http.Get(url)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(response.Status)
		}
		last = err
	}
	return fmt.Errorf("%s: %w", url, last)
}

// within is a context that ends with the longest wait.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// spec is a journal's specification as the tests want most of them.
func spec(name string, codec pb.CompressionCodec) *pb.JournalSpec {
	return &pb.JournalSpec{
		Name:        name,
		Replication: 1,
		Labels:      labels("app.gazette.dev/managed-by", "interop", "content-type", "application/x-ndjson"),
		Fragment: &pb.JournalSpec_Fragment{
			Length:           1 << 20,
			CompressionCodec: codec,
			Stores:           []string{"file:///"},
			RefreshInterval:  durationpb.New(time.Second),
			// Go programs of this protocol never leave these out.
			Retention:     &durationpb.Duration{},
			FlushInterval: &durationpb.Duration{},
		},
	}
}

// labels is a set of names and values, which the caller gives in their order.
func labels(pairs ...string) *pb.LabelSet {
	set := &pb.LabelSet{}
	for i := 0; i < len(pairs); i += 2 {
		set.Labels = append(set.Labels, &pb.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return set
}

func include(pairs ...string) *pb.LabelSelector { return &pb.LabelSelector{Include: labels(pairs...)} }

// create applies specifications of new journals, and waits until each has a primary.
func (b *broker) create(t *testing.T, specs ...*pb.JournalSpec) {
	t.Helper()
	request := &pb.ApplyRequest{}
	for _, spec := range specs {
		request.Changes = append(request.Changes, &pb.ApplyRequest_Change{Upsert: spec})
	}
	response, err := b.journal.Apply(within(t), request)
	if err != nil || response.Status != pb.Status_OK {
		t.Fatalf("Apply: %v %v", response, err)
	}
	for _, spec := range specs {
		b.awaitPrimary(t, spec.Name)
	}
}

// awaitPrimary waits until an empty append of a journal succeeds.
func (b *broker) awaitPrimary(t *testing.T, name string) {
	t.Helper()
	eventually(t, name+" has a primary", func() error {
		response, err := b.append(within(t), &pb.AppendRequest{Journal: name})
		if err == nil && response.Status != pb.Status_OK {
			err = errors.New(response.Status.String())
		}
		return err
	})
}

// append makes an append of chunks, as Go clients do: opening, content, an empty message, half-close.
func (b *broker) append(ctx context.Context, opening *pb.AppendRequest, chunks ...[]byte) (*pb.AppendResponse, error) {
	stream, err := b.journal.Append(ctx)
	if err != nil {
		return nil, err
	}
	messages := []*pb.AppendRequest{opening}
	for _, chunk := range chunks {
		messages = append(messages, &pb.AppendRequest{Content: chunk})
	}
	return send(stream, append(messages, &pb.AppendRequest{})...)
}

type appendStream = grpc.ClientStreamingClient[pb.AppendRequest, pb.AppendResponse]

// send sends messages and half-closes. A server which has answered ends the stream before: its answer counts.
func send(stream appendStream, messages ...*pb.AppendRequest) (*pb.AppendResponse, error) {
	for _, message := range messages {
		if err := stream.Send(message); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
	}
	return stream.CloseAndRecv()
}

// mustAppend appends and demands OK.
func (b *broker) mustAppend(t *testing.T, name string, chunks ...[]byte) *pb.AppendResponse {
	t.Helper()
	response, err := b.append(within(t), &pb.AppendRequest{Journal: name}, chunks...)
	if err != nil || response.Status != pb.Status_OK {
		t.Fatalf("append to %s: %v %v", name, response, err)
	}
	return response
}

// read collects the responses of a read that ends.
func (b *broker) read(ctx context.Context, request *pb.ReadRequest) ([]*pb.ReadResponse, error) {
	stream, err := b.journal.Read(ctx, request)
	if err != nil {
		return nil, err
	}
	var responses []*pb.ReadResponse
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			return responses, nil
		} else if err != nil {
			return responses, err
		}
		responses = append(responses, response)
	}
}

// content is what a read's responses carry.
func content(responses []*pb.ReadResponse) []byte {
	var bytes []byte
	for _, response := range responses {
		bytes = append(bytes, response.Content...)
	}
	return bytes
}

// sum is the protocol's form of the SHA-1 of content.
func sum(content []byte) *pb.SHA1Sum {
	digest := sha1.Sum(content)
	return &pb.SHA1Sum{
		Part1: binary.BigEndian.Uint64(digest[0:8]),
		Part2: binary.BigEndian.Uint64(digest[8:16]),
		Part3: binary.BigEndian.Uint32(digest[16:20]),
	}
}

// hexSum is a digest as file names have it.
func hexSum(sum *pb.SHA1Sum) string {
	return fmt.Sprintf("%016x%016x%08x", sum.Part1, sum.Part2, sum.Part3)
}
