package interop

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	gogoproto "github.com/gogo/protobuf/proto"
	gogotypes "github.com/gogo/protobuf/types"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	consumerpb "interop/gen/consumer"
	gogoconsumer "interop/gen/gogo/consumer"
	pb "interop/gen/protocol"
	"interop/gen/recoverylog"
	"interop/gen/wordcount"
)

func TestShards(t *testing.T) {
	t.Parallel()
	verify(t, "a ShardSpec that Go put into etcd is recovered and served", with(etcdGo, gogo, grpcGo), shardFromGo)
	verify(t, "messages that Go framed and stamped are counted once, in order", with(uuidGo, protobuf, grpcGo), shardMessages)
	verify(t, "Shard service: List, Stat, GetHints, Apply, Unassign, and as JSON", with(grpcGo, protobuf), shardService)
	verify(t, "hints in etcd are Go's JSON; hints that Go wrote are taken", with(etcdGo, protobuf), shardHints)
	verify(t, "recovery log: frames, checksums and fence, read by Go", with(grpcGo, protobuf), shardRecoveryLog)
}

// A word-count process on the broker's etcd.
type wordCount struct {
	broker   *broker
	endpoint string
	prefix   string
	shards   consumerpb.ShardClient
	grams    wordcount.NGramClient
}

const (
	deltas  = "interop/words/deltas/part-000"
	logs    = "interop/words/logs"
	hints   = "/interop/hints"
	shardID = "of-go-000"
)

var words = shared(func() (*wordCount, error) {
	address, err := startEtcd()
	if err != nil {
		return nil, err
	}
	b, err := startBroker(address, nil)
	if err != nil {
		return nil, err
	}
	w := &wordCount{broker: b, prefix: "/interop/word-count"}
	dir, err := directory()
	if err != nil {
		return nil, err
	}
	process, err := start(program("word-count"), []string{"serve", "--wordcount.N=2", "--broker.address=" + b.endpoint, "--etcd.address=" + b.etcdAddress,
		"--etcd.prefix=" + w.prefix, "--etcd.lease=5s", "--consumer.host=127.0.0.1", "--consumer.zone=zone-a", "--consumer.id=words-one"}, dir)
	if err != nil {
		return nil, err
	}
	if w.endpoint, err = process.waitLine(`serving on (http://[^, ]+)`); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(w.endpoint[len("http://"):], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	w.shards, w.grams = consumerpb.NewShardClient(conn), wordcount.NewNGramClient(conn)
	return w, nil
})

// begin makes the journals, and the shard as Go writes it, if they are not there yet; it waits for the shard's primary.
func (w *wordCount) begin(t *testing.T) *wordCount {
	t.Helper()
	journal := func(name, contentType string) *pb.ApplyRequest_Change {
		made := spec(name, pb.CompressionCodec_SNAPPY)
		made.Labels = labels("content-type", contentType)
		if contentType != "application/x-gazette-recoverylog" {
			made.Labels = labels("app.gazette.dev/message-type", "word_count.NGramCount", "content-type", contentType)
		}
		return &pb.ApplyRequest_Change{ExpectModRevision: -1, Upsert: made}
	}
	response, err := w.broker.journal.Apply(within(t), &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{
		journal(deltas, "application/x-protobuf-fixed"), journal(logs+"/"+shardID, "application/x-gazette-recoverylog"),
	}})
	if err != nil || response.Status != pb.Status_OK {
		t.Fatalf("Apply: %v %v", response, err)
	}
	w.broker.awaitPrimary(t, deltas)
	key := w.prefix + "/items/" + shardID
	if get(t, w.broker.etcd, key).Count == 0 {
		value, err := gogoproto.Marshal(&gogoconsumer.ShardSpec{
			Id: shardID, Sources: []*gogoconsumer.ShardSpec_Source{{Journal: deltas}}, RecoveryLogPrefix: logs, HintPrefix: hints, HintBackups: 2,
			MaxTxnDuration: &gogotypes.Duration{Nanos: 100e6}, MinTxnDuration: &gogotypes.Duration{},
		})
		if err != nil {
			t.Fatal(err)
		}
		put(t, w.broker.etcd, key, string(value))
	}
	eventually(t, "the shard has a primary", func() error {
		listed, err := w.shards.List(within(t), &consumerpb.ListRequest{Selector: include("id", shardID)})
		if err != nil || len(listed.Shards) != 1 || len(listed.Shards[0].Status) != 1 || listed.Shards[0].Status[0].Code != consumerpb.ReplicaStatus_PRIMARY {
			return fmt.Errorf("%v %v", listed, err)
		}
		return nil
	})
	return w
}

func shardFromGo(t *testing.T) {
	w := words(t).begin(t)
	listed, err := w.shards.List(within(t), &consumerpb.ListRequest{})
	if err != nil || len(listed.Shards) != 1 {
		t.Fatalf("List: %v %v", listed, err)
	}
	item := onlyKey(t, w.broker.etcd, w.prefix+"/items/"+shardID)
	shard := listed.Shards[0]
	if shard.ModRevision != item.ModRevision || shard.CreateRevision != item.CreateRevision || shard.Spec.HintBackups != 2 ||
		shard.Route.Members[0].Suffix != "words-one" || shard.Route.Endpoints[0] != w.endpoint || listed.Header.Route.Primary != -1 {
		t.Fatalf("List: %v", listed)
	}
	// The member and the assignment, as Go's types have them.
	member := onlyKey(t, w.broker.etcd, w.prefix+"/members/zone-a#words-one")
	announced := unmarshalGogo[gogoconsumer.ConsumerSpec](t, member.Value)
	if announced.ProcessSpec.Endpoint != w.endpoint || announced.ShardLimit != 32 || member.Lease == 0 {
		t.Fatalf("member: %v", announced)
	}
	assignment := onlyKey(t, w.broker.etcd, w.prefix+"/assign/"+shardID+"#zone-a#words-one#0")
	status := unmarshalGogo[gogoconsumer.ReplicaStatus](t, assignment.Value)
	if status.Code != gogoconsumer.ReplicaStatus_PRIMARY || len(status.Errors) != 0 || assignment.Lease != member.Lease {
		t.Fatalf("assignment: %v of lease %d, the member's is %d", status, assignment.Lease, member.Lease)
	}
}

// fixed is a message in the framing of its journal.
func fixed(t *testing.T, message proto.Message) []byte {
	t.Helper()
	payload, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	frame := append([]byte{0x66, 0x33, 0x93, 0x36}, binary.LittleEndian.AppendUint32(nil, uint32(len(payload)))...)
	return append(frame, payload...)
}

// count waits until the shard has read through an offset, and asks for one n-gram.
func (w *wordCount) count(t *testing.T, through int64, gram string) uint64 {
	t.Helper()
	stat, err := w.shards.Stat(within(t), &consumerpb.StatRequest{Shard: shardID, ReadThrough: map[string]int64{deltas: through}})
	if err != nil || stat.Status != consumerpb.Status_OK || stat.ReadThrough[deltas] < through {
		t.Fatalf("Stat: %v %v", stat, err)
	}
	response, err := w.grams.Query(within(t), &wordcount.QueryRequest{Prefix: gram, Shard: shardID})
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range response.Grams {
		if found.NGram == gram {
			return found.Count
		}
	}
	return 0
}

func shardMessages(t *testing.T) {
	w := words(t).begin(t)
	const outside, within_, ack = 0, 1, 2
	producer, other := [6]byte{1, 'g', 'o', 0, 0, 1}, [6]byte{1, 'g', 'o', 0, 0, 2}
	clock := clockAt(time.Now())
	message := func(producer [6]byte, tick uint64, flags uint16, gram string, count uint64) []byte {
		id := stamp(t, producer, clock+tick*160, flags)
		return fixed(t, &wordcount.NGramCount{Uuid: id[:], NGram: gram, Count: count})
	}
	// Outside of transactions: counted at once, a duplicate is not.
	one := message(producer, 1, outside, "from go", 3)
	end := w.broker.mustAppend(t, deltas, one, one, message(producer, 2, outside, "from go", 4)).Commit.End
	if got := w.count(t, end, "from go"); got != 7 {
		t.Errorf("counted %d, expected 7", got)
	}
	// Of a transaction nothing counts until it is acknowledged. Other producers go on.
	w.broker.mustAppend(t, deltas, message(producer, 3, within_, "of a transaction", 5), message(producer, 4, within_, "of a transaction", 6))
	end = w.broker.mustAppend(t, deltas, message(other, 1, outside, "of another", 1)).Commit.End
	if got := w.count(t, end, "of another"); got != 1 {
		t.Errorf("beside a pending transaction: counted %d, expected 1", got)
	}
	if got := w.count(t, 0, "of a transaction"); got != 0 {
		t.Errorf("before its acknowledgement a transaction counted for %d", got)
	}
	end = w.broker.mustAppend(t, deltas, message(producer, 5, ack, "", 0)).Commit.End
	if got := w.count(t, end, "of a transaction"); got != 11 {
		t.Errorf("after its acknowledgement a transaction counted for %d, expected 11", got)
	}
	// An acknowledgement that is sent again, by a process which recovered, takes back what came after it.
	w.broker.mustAppend(t, deltas, message(producer, 6, within_, "taken back", 1))
	end = w.broker.mustAppend(t, deltas, message(producer, 5, ack, "", 0), message(producer, 7, outside, "after it", 1)).Commit.End
	if got := w.count(t, end, "after it"); got != 1 || w.count(t, 0, "taken back") != 0 {
		t.Errorf("after a repeated acknowledgement: counted %d and %d, expected 1 and 0", got, w.count(t, 0, "taken back"))
	}
	// A UUID of zeros is not sequenced.
	plain := fixed(t, &wordcount.NGramCount{Uuid: make([]byte, 16), NGram: "without uuid", Count: 1})
	end = w.broker.mustAppend(t, deltas, plain, plain).Commit.End
	if got := w.count(t, end, "without uuid"); got != 2 {
		t.Errorf("messages without UUID counted for %d, expected 2", got)
	}
}

func shardService(t *testing.T) {
	w := words(t).begin(t)
	absent, err := w.shards.Stat(within(t), &consumerpb.StatRequest{Shard: "absent"})
	if err != nil || absent.Status != consumerpb.Status_SHARD_NOT_FOUND {
		t.Errorf("Stat of no shard: %v %v", absent, err)
	}
	_, err = w.shards.Stat(within(t), &consumerpb.StatRequest{Shard: "a b c d"})
	wantError(t, "a bad id", err, codes.Unknown, "Shard: not a valid token (a b c d)")
	// What has not been appended is waited for, as long as the caller does.
	short, cancel := context.WithTimeout(within(t), 300*time.Millisecond)
	defer cancel()
	if _, err := w.shards.Stat(short, &consumerpb.StatRequest{Shard: shardID, ReadThrough: map[string]int64{deltas: 1 << 40}}); err == nil {
		t.Error("a Stat of the future was answered")
	}
	old, err := w.shards.Apply(within(t), &consumerpb.ApplyRequest{Changes: []*consumerpb.ApplyRequest_Change{{ExpectModRevision: 1, Delete: shardID}}})
	if err != nil || old.Status != consumerpb.Status_ETCD_TRANSACTION_FAILED {
		t.Errorf("Apply with an old revision: %v %v", old, err)
	}
	dry, err := w.shards.Unassign(within(t), &consumerpb.UnassignRequest{Shards: []string{shardID, "absent"}, DryRun: true})
	if err != nil || dry.Status != consumerpb.Status_OK || len(dry.Shards) != 1 || dry.Shards[0] != shardID {
		t.Errorf("Unassign, dry: %v %v", dry, err)
	}
	// As JSON, the same.
	for path, c := range map[string]struct {
		request, response proto.Message
		call              func() (proto.Message, error)
	}{
		"/v1/shards/list": {&consumerpb.ListRequest{Selector: include("id", shardID)}, &consumerpb.ListResponse{}, func() (proto.Message, error) {
			return w.shards.List(within(t), &consumerpb.ListRequest{Selector: include("id", shardID)})
		}},
		"/v1/shards/stat": {&consumerpb.StatRequest{Shard: shardID}, &consumerpb.StatResponse{}, func() (proto.Message, error) {
			return w.shards.Stat(within(t), &consumerpb.StatRequest{Shard: shardID})
		}},
	} {
		want, err := c.call()
		if err != nil {
			t.Fatal(err)
		}
		body, err := protojson.Marshal(c.request)
		if err != nil {
			t.Fatal(err)
		}
		response, text := do(t, http.DefaultClient, request(t, "POST", w.endpoint+path, body))
		if err := protojson.Unmarshal(text, c.response); err != nil || response.StatusCode != http.StatusOK || !proto.Equal(c.response, want) {
			t.Errorf("%s: %s\n%s\nexpected %v (%v)", path, response.Status, text, want, err)
		}
	}
}

// Hints as Go's encoding/json has them, with the names of the .proto files and numbers as numbers.
type jsonHints struct {
	Log        string         `json:"log,omitempty"`
	LiveNodes  []jsonNode     `json:"live_nodes"`
	Properties []jsonProperty `json:"properties"`
}

type jsonNode struct {
	Fnode    int64         `json:"fnode,omitempty"`
	Segments []jsonSegment `json:"segments"`
}

type jsonSegment struct {
	Author        uint32 `json:"author,omitempty"`
	FirstSeqNo    int64  `json:"first_seq_no,omitempty"`
	FirstOffset   int64  `json:"first_offset,omitempty"`
	FirstChecksum uint32 `json:"first_checksum,omitempty"`
	LastSeqNo     int64  `json:"last_seq_no,omitempty"`
	LastOffset    int64  `json:"last_offset,omitempty"`
	Log           string `json:"log,omitempty"`
}

type jsonProperty struct {
	Path    string `json:"path,omitempty"`
	Content string `json:"content,omitempty"`
}

func shardHints(t *testing.T) {
	w := words(t).begin(t)
	backup := hints + "/" + shardID + ".backup.0"
	var stored []byte
	eventually(t, "hints are stored", func() error {
		kvs := get(t, w.broker.etcd, backup).Kvs
		if len(kvs) != 1 {
			return errors.New("no key " + backup)
		}
		stored = kvs[0].Value
		return nil
	})
	var decoded jsonHints
	strict := json.NewDecoder(bytes.NewReader(stored))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&decoded); err != nil || decoded.Log != logs+"/"+shardID {
		t.Fatalf("%s: %v", stored, err)
	}
	// Go's encoder makes the same text of them.
	if again, err := json.Marshal(decoded); err != nil || !bytes.Equal(again, stored) {
		t.Errorf("hints:\n%s\nGo's encoder writes\n%s (%v)", stored, again, err)
	}
	response, err := w.shards.GetHints(within(t), &consumerpb.GetHintsRequest{Shard: shardID})
	if err != nil || response.Status != consumerpb.Status_OK || len(response.BackupHints) != 2 || response.BackupHints[0].Hints == nil {
		t.Fatalf("GetHints: %v %v", response, err)
	}
	if asJSON := hintsOf(response.BackupHints[0].Hints); fmt.Sprint(asJSON) != fmt.Sprint(decoded) {
		t.Errorf("GetHints: %v, etcd has %v", asJSON, decoded)
	}
	// The primary's hints, in Go's JSON and in protobuf, are read as what they are.
	want := response.BackupHints[0].Hints
	binary_, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	key := hints + "/" + shardID + ".primary"
	for _, value := range [][]byte{stored, binary_} {
		put(t, w.broker.etcd, key, string(value))
		response, err := w.shards.GetHints(within(t), &consumerpb.GetHintsRequest{Shard: shardID})
		if err != nil || !proto.Equal(response.PrimaryHints.GetHints(), want) {
			t.Errorf("GetHints of what Go wrote: %v %v", response, err)
		}
	}
	// A shard that begins anew plays its log from these hints, and has counted what it had counted.
	end := w.broker.mustAppend(t, deltas, fixed(t, &wordcount.NGramCount{Uuid: make([]byte, 16), NGram: "before the recovery", Count: 9})).Commit.End
	if got := w.count(t, end, "before the recovery"); got != 9 {
		t.Fatalf("counted %d, expected 9", got)
	}
	before := onlyKey(t, w.broker.etcd, w.prefix+"/assign/"+shardID+"#zone-a#words-one#0").CreateRevision
	unassigned, err := w.shards.Unassign(within(t), &consumerpb.UnassignRequest{Shards: []string{shardID}})
	if err != nil || unassigned.Status != consumerpb.Status_OK {
		t.Fatalf("Unassign: %v %v", unassigned, err)
	}
	eventually(t, "the shard is assigned anew", func() error {
		kvs := get(t, w.broker.etcd, w.prefix+"/assign/"+shardID+"#", clientv3.WithPrefix()).Kvs
		if len(kvs) != 1 || kvs[0].CreateRevision == before {
			return fmt.Errorf("%v", kvs)
		}
		return nil
	})
	w.begin(t)
	if got := w.count(t, end, "before the recovery"); got != 9 {
		t.Errorf("after the recovery: counted %d, expected 9", got)
	}
}

func hintsOf(hints *recoverylog.FSMHints) jsonHints {
	decoded := jsonHints{Log: hints.Log}
	for _, node := range hints.LiveNodes {
		one := jsonNode{Fnode: node.Fnode}
		for _, s := range node.Segments {
			one.Segments = append(one.Segments, jsonSegment{s.Author, s.FirstSeqNo, s.FirstOffset, s.FirstChecksum, s.LastSeqNo, s.LastOffset, s.Log})
		}
		decoded.LiveNodes = append(decoded.LiveNodes, one)
	}
	for _, property := range hints.Properties {
		decoded.Properties = append(decoded.Properties, jsonProperty{property.Path, property.Content})
	}
	return decoded
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Reads the log as a player does, with Go's CRC-32C and protobuf: every operation continues the chain of those before it.
func shardRecoveryLog(t *testing.T) {
	w := words(t).begin(t)
	responses, err := w.broker.read(within(t), &pb.ReadRequest{Journal: logs + "/" + shardID})
	if err != nil {
		t.Fatal(err)
	}
	log := bytes.NewReader(content(responses))
	var sequence int64
	var checksum, author uint32
	links := map[string]int64{}
	files := map[int64][]byte{} // Content by fnode.
	for {
		head := make([]byte, 8)
		if _, err := io.ReadFull(log, head); err == io.EOF {
			break
		} else if err != nil || !bytes.Equal(head[:4], []byte{0x66, 0x33, 0x93, 0x36}) {
			t.Fatalf("a frame begins with %x (%v)", head, err)
		}
		payload := make([]byte, binary.LittleEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(log, payload); err != nil {
			t.Fatal(err)
		}
		op := &recoverylog.RecordedOp{}
		if err := proto.Unmarshal(payload, op); err != nil || op.Author == 0 || op.FirstOffset != 0 || op.Log != "" {
			t.Fatalf("operation: %v (%v)", op, err)
		}
		var written []byte
		if op.Write != nil {
			written = make([]byte, op.Write.Length)
			if _, err := io.ReadFull(log, written); err != nil {
				t.Fatal(err)
			}
		}
		// An operation of another author, or one that lost a race, does not continue the chain.
		if op.SeqNo != sequence+1 || op.Checksum != checksum {
			continue
		}
		sequence, checksum, author = op.SeqNo, crc32.Update(checksum, castagnoli, payload), op.Author
		switch {
		case op.Create != nil:
			links[op.Create.Path] = op.SeqNo
			files[op.SeqNo] = nil
		case op.Link != nil:
			links[op.Link.Path] = op.Link.Fnode
		case op.Unlink != nil:
			delete(links, op.Unlink.Path)
		case op.Write != nil:
			file := files[op.Write.Fnode]
			if int64(len(file)) < op.Write.Offset+op.Write.Length {
				file = append(file, make([]byte, op.Write.Offset+op.Write.Length-int64(len(file)))...)
			}
			copy(file[op.Write.Offset:], written)
			files[op.Write.Fnode] = file
		}
	}
	if sequence < 10 {
		t.Fatalf("the log has %d operations", sequence)
	}
	// The files are those of a RocksDB, and its CURRENT names its manifest.
	current := string(bytes.TrimSpace(files[links["/CURRENT"]]))
	if _, ok := links["/"+current]; !ok || current == "" {
		t.Fatalf("CURRENT names %q, of files %v", current, links)
	}
	// The journal's registers hold the fence of the last author.
	response, err := w.broker.append(within(t), &pb.AppendRequest{Journal: logs + "/" + shardID, CheckRegisters: include("author", "nobody")})
	fence := labels("author", strconv.FormatUint(uint64(author), 32))
	if err != nil || response.Status != pb.Status_REGISTER_MISMATCH || !proto.Equal(response.Registers, fence) {
		t.Fatalf("registers: %v, expected %v (%v)", response, fence, err)
	}
	// `courant shards recover` makes the same files of it.
	dir := t.TempDir()
	run(t, program("courant"), []string{"shards", "recover", "--id=" + shardID, "--dir=" + dir + "/recovered", "--broker.address=" + w.broker.endpoint, "--consumer.address=" + w.endpoint}, dir, nil)
	recovered, err := os.ReadFile(filepath.Join(dir, "recovered", "CURRENT"))
	if err != nil || string(bytes.TrimSpace(recovered)) != current {
		t.Fatalf("recovered CURRENT: %q, expected %q (%v)", recovered, current, err)
	}
}
