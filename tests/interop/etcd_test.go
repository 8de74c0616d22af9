package interop

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

func TestEtcd(t *testing.T) {
	t.Parallel()
	// Each is asked of a real etcd too: what holds there must hold here.
	for _, c := range []struct {
		name   string
		client func(t *testing.T) *clientv3.Client
	}{
		{"real etcd", func(t *testing.T) *clientv3.Client { return onEtcd(t).etcd }},
		{"embedded etcd", func(t *testing.T) *clientv3.Client { return alone(t).etcd }},
	} {
		row := func(what string, body func(t *testing.T, client *clientv3.Client, root string)) {
			verify(t, c.name+": "+what, etcdGo, func(t *testing.T) {
				body(t, c.client(t), fmt.Sprintf("/interop-%s/", what[:5]))
			})
		}
		row("range with sort, limit, pages, revisions, counts and keys alone", etcdRange)
		row("put and delete with previous values, ignored values and leases", etcdPut)
		row("transactions: every comparison, both branches, nested ones, errors", etcdTxn)
		row("watch: from a revision, prefix, previous values, filters, progress", etcdWatch)
		row("compaction: what is older is refused, also by watches", etcdCompact)
		row("lease: grant, keep-alive, time to live, expiry, revocation", etcdLease)
		row("status, members and endpoint sync, as the client asks for them", etcdStatus)
	}
	verify(t, "embedded etcd: is not too old for a client that rejects old clusters", etcdGo, etcdNotOld)
	verify(t, "embedded etcd: sessions and mutexes of etcd's own library", etcdGo, etcdMutex)
}

func must[T any](t *testing.T) func(value T, err error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func put(t *testing.T, client *clientv3.Client, key, value string, options ...clientv3.OpOption) int64 {
	t.Helper()
	response, err := client.Put(within(t), key, value, options...)
	if err != nil {
		t.Fatal(err)
	}
	return response.Header.Revision
}

func get(t *testing.T, client *clientv3.Client, key string, options ...clientv3.OpOption) *clientv3.GetResponse {
	t.Helper()
	response, err := client.Get(within(t), key, options...)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// onlyKey is a key that must be there.
func onlyKey(t *testing.T, client *clientv3.Client, key string) *mvccpb.KeyValue {
	t.Helper()
	response := get(t, client, key)
	if len(response.Kvs) != 1 {
		t.Fatalf("%s: %v", key, response)
	}
	return response.Kvs[0]
}

func keysOf(response *clientv3.GetResponse) string {
	text := ""
	for _, kv := range response.Kvs {
		text += string(kv.Key[len(kv.Key)-1:]) + "=" + string(kv.Value) + " "
	}
	return text
}

func etcdRange(t *testing.T, client *clientv3.Client, root string) {
	for _, pair := range []string{"a3", "b1", "c2"} {
		put(t, client, root+pair[:1], pair[1:])
	}
	before := put(t, client, root+"d", "0")
	put(t, client, root+"b", "9")
	prefix := clientv3.WithPrefix()
	for _, c := range []struct {
		what    string
		options []clientv3.OpOption
		want    string
	}{
		{"all", nil, "a=3 b=9 c=2 d=0 "},
		{"descending keys", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)}, "d=0 c=2 b=9 a=3 "},
		{"by value", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)}, "d=0 c=2 a=3 b=9 "},
		{"by modification", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend)}, "b=9 d=0 c=2 a=3 "},
		{"by creation, two", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortDescend), clientv3.WithLimit(2)}, "d=0 c=2 "},
		{"by version", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByVersion, clientv3.SortDescend), clientv3.WithLimit(1)}, "b=9 "},
		{"of a former revision", []clientv3.OpOption{clientv3.WithRev(before)}, "a=3 b=1 c=2 d=0 "},
		{"keys alone", []clientv3.OpOption{clientv3.WithKeysOnly()}, "a= b= c= d= "},
		{"modified since", []clientv3.OpOption{clientv3.WithMinModRev(before)}, "b=9 d=0 "},
		{"created before", []clientv3.OpOption{clientv3.WithMaxCreateRev(before - 1)}, "a=3 b=9 c=2 "},
		{"serializable", []clientv3.OpOption{clientv3.WithSerializable()}, "a=3 b=9 c=2 d=0 "},
	} {
		if got := keysOf(get(t, client, root, append(c.options, prefix)...)); got != c.want {
			t.Errorf("%s: %q, expected %q", c.what, got, c.want)
		}
	}
	// Pages: each begins after the last key of the one before, at one revision.
	page := get(t, client, root, prefix, clientv3.WithLimit(3))
	if keysOf(page) != "a=3 b=9 c=2 " || !page.More || page.Count != 4 {
		t.Errorf("the first page: %q, more %v, of %d", keysOf(page), page.More, page.Count)
	}
	next := string(page.Kvs[2].Key) + "\x00"
	rest := get(t, client, next, clientv3.WithRange(clientv3.GetPrefixRangeEnd(root)), clientv3.WithRev(page.Header.Revision), clientv3.WithLimit(3))
	if keysOf(rest) != "d=0 " || rest.More || rest.Count != 1 {
		t.Errorf("the second page: %q, more %v, of %d", keysOf(rest), rest.More, rest.Count)
	}
	if count := get(t, client, root, prefix, clientv3.WithCountOnly()); count.Count != 4 || len(count.Kvs) != 0 {
		t.Errorf("count: %v", count)
	}
	if from := get(t, client, root+"c", clientv3.WithFromKey(), clientv3.WithLimit(2)); keysOf(from) != "c=2 d=0 " {
		t.Errorf("from a key on: %q", keysOf(from))
	}
	kv := onlyKey(t, client, root+"b")
	if kv.Version != 2 || kv.ModRevision <= kv.CreateRevision || kv.Lease != 0 {
		t.Errorf("key: %v", kv)
	}
	if _, err := client.Get(within(t), root, clientv3.WithRev(1<<40)); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Errorf("a revision to come: %v", err)
	}
	if _, err := client.Get(within(t), ""); !errors.Is(err, rpctypes.ErrEmptyKey) {
		t.Errorf("an empty key: %v", err)
	}
}

func etcdPut(t *testing.T, client *clientv3.Client, root string) {
	key := root + "key"
	first := must[*clientv3.PutResponse](t)(client.Put(within(t), key, "one", clientv3.WithPrevKV()))
	if first.PrevKv != nil {
		t.Errorf("before the first value: %v", first.PrevKv)
	}
	lease := must[*clientv3.LeaseGrantResponse](t)(client.Grant(within(t), 60)).ID
	second := must[*clientv3.PutResponse](t)(client.Put(within(t), key, "two", clientv3.WithPrevKV(), clientv3.WithLease(lease)))
	if string(second.PrevKv.Value) != "one" {
		t.Errorf("before the second value: %v", second.PrevKv)
	}
	put(t, client, key, "three", clientv3.WithIgnoreLease())
	put(t, client, key, "", clientv3.WithIgnoreValue(), clientv3.WithLease(lease))
	if kv := onlyKey(t, client, key); string(kv.Value) != "three" || kv.Lease != int64(lease) || kv.Version != 4 {
		t.Errorf("key: %v", kv)
	}
	if _, err := client.Put(within(t), root+"absent", "x", clientv3.WithIgnoreLease()); !errors.Is(err, rpctypes.ErrKeyNotFound) {
		t.Errorf("the lease of a key that is not there: %v", err)
	}
	if _, err := client.Put(within(t), key, "x", clientv3.WithLease(12345)); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("a lease that is not there: %v", err)
	}
	put(t, client, root+"other", "x")
	deleted := must[*clientv3.DeleteResponse](t)(client.Delete(within(t), root, clientv3.WithPrefix(), clientv3.WithPrevKV()))
	if deleted.Deleted != 2 || len(deleted.PrevKvs) != 2 || string(deleted.PrevKvs[0].Value) != "three" {
		t.Errorf("deleted: %v", deleted)
	}
	again := must[*clientv3.DeleteResponse](t)(client.Delete(within(t), key))
	if again.Deleted != 0 || again.Header.Revision != deleted.Header.Revision {
		t.Errorf("a delete of nothing: %v after %v", again, deleted)
	}
}

func etcdTxn(t *testing.T, client *clientv3.Client, root string) {
	key := root + "key"
	revision := put(t, client, key, "m")
	lease := must[*clientv3.LeaseGrantResponse](t)(client.Grant(within(t), 60)).ID
	put(t, client, root+"leased", "x", clientv3.WithLease(lease))
	for _, c := range []struct {
		what string
		cmp  clientv3.Cmp
		want bool
	}{
		{"value equals", clientv3.Compare(clientv3.Value(key), "=", "m"), true},
		{"value is greater", clientv3.Compare(clientv3.Value(key), ">", "m"), false},
		{"value differs", clientv3.Compare(clientv3.Value(key), "!=", "n"), true},
		{"value is less", clientv3.Compare(clientv3.Value(key), "<", "n"), true},
		{"modified at", clientv3.Compare(clientv3.ModRevision(key), "=", revision), true},
		{"created before", clientv3.Compare(clientv3.CreateRevision(key), "<", revision), false},
		{"version", clientv3.Compare(clientv3.Version(key), "=", 1), true},
		{"absent", clientv3.Compare(clientv3.Version(root+"absent"), "=", 0), true},
		{"absent by modification", clientv3.Compare(clientv3.ModRevision(root+"absent"), "=", 0), true},
		{"absent by value", clientv3.Compare(clientv3.Value(root+"absent"), "=", ""), false},
		{"lease", clientv3.Compare(clientv3.LeaseValue(root+"leased"), "=", lease), true},
		{"all of a prefix", clientv3.Compare(clientv3.Version(root), "=", 1).WithPrefix(), true},
		{"all of a range", clientv3.Compare(clientv3.Value(root), "=", "m").WithPrefix(), false},
	} {
		response := must[*clientv3.TxnResponse](t)(client.Txn(within(t)).If(c.cmp).Then(clientv3.OpGet(key)).Commit())
		if response.Succeeded != c.want || (len(response.Responses) == 1) != c.want {
			t.Errorf("%s: %v, expected %v", c.what, response.Succeeded, c.want)
		}
	}
	// Operations see those before them; all have one revision.
	response := must[*clientv3.TxnResponse](t)(client.Txn(within(t)).
		If(clientv3.Compare(clientv3.Version(key), "=", 5)).
		Then(clientv3.OpPut(root+"never", "x")).
		Else(
			clientv3.OpPut(root+"one", "1"),
			clientv3.OpDelete(key),
			clientv3.OpGet(root, clientv3.WithPrefix()),
			clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value(root+"leased"), "=", "x")},
				[]clientv3.Op{clientv3.OpPut(root+"two", "2")}, nil),
		).Commit())
	seen := response.Responses[2].GetResponseRange()
	nested := response.Responses[3].GetResponseTxn()
	if response.Succeeded || response.Responses[1].GetResponseDeleteRange().Deleted != 1 || seen.Count != 2 || !nested.Succeeded {
		t.Errorf("transaction: %v", response)
	}
	one, two := onlyKey(t, client, root+"one"), onlyKey(t, client, root+"two")
	if one.ModRevision != response.Header.Revision || two.ModRevision != response.Header.Revision {
		t.Errorf("revisions %d and %d of one transaction at %d", one.ModRevision, two.ModRevision, response.Header.Revision)
	}
	// One that only reads has the revision of now.
	reads := must[*clientv3.TxnResponse](t)(client.Txn(within(t)).Then(clientv3.OpGet(key)).Commit())
	if reads.Header.Revision < response.Header.Revision || reads.Responses[0].GetResponseRange().Count != 0 {
		t.Errorf("a transaction that reads: %v", reads)
	}
	if _, err := client.Txn(within(t)).Then(clientv3.OpPut(key, "1"), clientv3.OpPut(key, "2")).Commit(); !errors.Is(err, rpctypes.ErrDuplicateKey) {
		t.Errorf("one key twice: %v", err)
	}
	var many []clientv3.Op
	for i := range 129 {
		many = append(many, clientv3.OpPut(fmt.Sprintf("%smany/%d", root, i), "x"))
	}
	if _, err := client.Txn(within(t)).Then(many[:128]...).Commit(); err != nil {
		t.Errorf("128 operations: %v", err)
	}
	if _, err := client.Txn(within(t)).Then(many...).Commit(); !errors.Is(err, rpctypes.ErrTooManyOps) {
		t.Errorf("129 operations: %v", err)
	}
}

// event receives one event of a watch, whatever number of them a response has.
func event(t *testing.T, watch clientv3.WatchChan, pending *[]*clientv3.Event) *clientv3.Event {
	t.Helper()
	for len(*pending) == 0 {
		select {
		case response, ok := <-watch:
			if !ok || response.Err() != nil {
				t.Fatalf("the watch ended: %v", response.Err())
			}
			*pending = append(*pending, response.Events...)
		case <-time.After(limit):
			t.Fatal("no event came")
		}
	}
	first := (*pending)[0]
	*pending = (*pending)[1:]
	return first
}

func etcdWatch(t *testing.T, client *clientv3.Client, root string) {
	first := put(t, client, root+"a", "1")
	put(t, client, root+"a", "2")
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	all := client.Watch(clientv3.WithRequireLeader(ctx), root, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(first), clientv3.WithProgressNotify())
	deletes := client.Watch(ctx, root, clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithFilterPut())
	created := client.Watch(ctx, root+"new", clientv3.WithCreatedNotify())
	if response := <-created; !response.Created {
		t.Fatalf("the notification of a watch: %v", response)
	}
	must[*clientv3.TxnResponse](t)(client.Txn(within(t)).Then(clientv3.OpPut(root+"b", "3"), clientv3.OpDelete(root+"a")).Commit())
	var pending []*clientv3.Event
	for i, want := range []string{"PUT a 1 ", "PUT a 2 1", "PUT b 3 ", "DELETE a  2"} {
		e := event(t, all, &pending)
		previous := ""
		if e.PrevKv != nil {
			previous = string(e.PrevKv.Value)
		}
		if got := fmt.Sprintf("%s %s %s %s", e.Type, e.Kv.Key[len(root):], e.Kv.Value, previous); got != want {
			t.Errorf("event %d: %q, expected %q", i, got, want)
		}
		if e.IsCreate() != (i == 0 || i == 2) || e.IsModify() != (i == 1) {
			t.Errorf("event %d: %v", i, e)
		}
	}
	pending = nil
	if e := event(t, deletes, &pending); e.Type != clientv3.EventTypeDelete || string(e.Kv.Key) != root+"a" {
		t.Errorf("the deletes: %v", e)
	}
	if err := client.RequestProgress(clientv3.WithRequireLeader(ctx)); err != nil {
		t.Fatal(err)
	}
	select {
	case response := <-all:
		if !response.IsProgressNotify() || response.Header.Revision <= first {
			t.Errorf("progress: %v", response)
		}
	case <-time.After(limit):
		t.Fatal("no progress was told")
	}
	cancel()
	for range all { // It is closed.
	}
}

func etcdCompact(t *testing.T, client *clientv3.Client, root string) {
	old := put(t, client, root+"key", "1")
	put(t, client, root+"key", "2")
	now := put(t, client, root+"key", "3")
	must[*clientv3.CompactResponse](t)(client.Compact(within(t), now))
	if _, err := client.Get(within(t), root+"key", clientv3.WithRev(old)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("a read of a compacted revision: %v", err)
	}
	if kv := get(t, client, root+"key", clientv3.WithRev(now)).Kvs[0]; string(kv.Value) != "3" || kv.Version != 3 {
		t.Errorf("a read of the compaction's revision: %v", kv)
	}
	if _, err := client.Compact(within(t), old); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("a second compaction: %v", err)
	}
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	response := <-client.Watch(ctx, root+"key", clientv3.WithRev(old))
	if !errors.Is(response.Err(), rpctypes.ErrCompacted) || response.CompactRevision != now {
		t.Errorf("a watch of a compacted revision: %v, compacted at %d, expected %d", response.Err(), response.CompactRevision, now)
	}
}

func etcdLease(t *testing.T, client *clientv3.Client, root string) {
	granted := must[*clientv3.LeaseGrantResponse](t)(client.Grant(within(t), 2))
	put(t, client, root+"kept", "x", clientv3.WithLease(granted.ID))
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	kept := must[<-chan *clientv3.LeaseKeepAliveResponse](t)(client.KeepAlive(ctx, granted.ID))
	for range 5 { // The client renews it every third of its time: it lives longer than it was granted for.
		select {
		case response := <-kept:
			if response == nil || response.TTL != granted.TTL {
				t.Fatalf("keep-alive: %v", response)
			}
		case <-time.After(limit):
			t.Fatal("the lease was not kept alive")
		}
	}
	live := must[*clientv3.LeaseTimeToLiveResponse](t)(client.TimeToLive(within(t), granted.ID, clientv3.WithAttachedKeys()))
	if live.GrantedTTL != granted.TTL || live.TTL <= 0 || len(live.Keys) != 1 || string(live.Keys[0]) != root+"kept" {
		t.Errorf("time to live: %v", live)
	}
	listed := must[*clientv3.LeaseLeasesResponse](t)(client.Leases(within(t)))
	found := false
	for _, lease := range listed.Leases {
		found = found || lease.ID == granted.ID
	}
	if !found {
		t.Errorf("leases: %v", listed.Leases)
	}
	// Left alone it expires, and its keys go with it.
	watch := client.Watch(within(t), root+"kept")
	cancel()
	var pending []*clientv3.Event
	if e := event(t, watch, &pending); e.Type != clientv3.EventTypeDelete {
		t.Errorf("at the end of a lease: %v", e)
	}
	gone := must[*clientv3.LeaseTimeToLiveResponse](t)(client.TimeToLive(within(t), granted.ID))
	if gone.TTL != -1 {
		t.Errorf("time to live of an expired lease: %v", gone)
	}
	if _, err := client.KeepAliveOnce(within(t), granted.ID); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("keep-alive of an expired lease: %v", err)
	}
	other := must[*clientv3.LeaseGrantResponse](t)(client.Grant(within(t), 60)).ID
	put(t, client, root+"revoked", "x", clientv3.WithLease(other))
	must[*clientv3.LeaseRevokeResponse](t)(client.Revoke(within(t), other))
	if get(t, client, root+"revoked").Count != 0 {
		t.Error("a key outlived its revoked lease")
	}
	if _, err := client.Revoke(within(t), other); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("a second revocation: %v", err)
	}
}

func etcdStatus(t *testing.T, client *clientv3.Client, _ string) {
	endpoint := client.Endpoints()[0]
	status := must[*clientv3.StatusResponse](t)(client.Status(within(t), endpoint))
	if status.Leader != status.Header.MemberId || status.RaftTerm == 0 || status.Version == "" || status.Header.ClusterId == 0 {
		t.Errorf("status: %v", status)
	}
	members := must[*clientv3.MemberListResponse](t)(client.MemberList(within(t)))
	if len(members.Members) != 1 || members.Members[0].ID != status.Header.MemberId || len(members.Members[0].ClientURLs) == 0 {
		t.Errorf("members: %v", members)
	}
	if err := client.Sync(within(t)); err != nil || client.Endpoints()[0] != members.Members[0].ClientURLs[0] {
		t.Errorf("sync: %v, endpoints %v", err, client.Endpoints())
	}
	if _, err := client.Get(within(t), "/interop"); err != nil {
		t.Error(err)
	}
}

// As Gazette's processes connect.
func etcdNotOld(t *testing.T) {
	strict, err := clientv3.New(clientv3.Config{
		Endpoints: []string{alone(t).endpoint}, DialTimeout: limit, AutoSyncInterval: time.Minute, RejectOldCluster: true,
		Logger: zap.NewNop(), DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer strict.Close()
	if _, err := strict.Get(within(t), "/interop"); err != nil {
		t.Fatal(err)
	}
}

func etcdMutex(t *testing.T) {
	client := alone(t).etcd
	session := must[*concurrency.Session](t)(concurrency.NewSession(client, concurrency.WithTTL(30)))
	other := must[*concurrency.Session](t)(concurrency.NewSession(client, concurrency.WithTTL(30)))
	held, wanted := concurrency.NewMutex(session, "/interop-mutex"), concurrency.NewMutex(other, "/interop-mutex")
	if err := held.Lock(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := wanted.TryLock(within(t)); !errors.Is(err, concurrency.ErrLocked) {
		t.Fatalf("a mutex that is held: %v", err)
	}
	locked := make(chan error, 1)
	go func() { locked <- wanted.Lock(within(t)) }()
	if err := session.Close(); err != nil { // Its lease is revoked, and the mutex with it.
		t.Fatal(err)
	}
	if err := <-locked; err != nil {
		t.Fatalf("after the session of the holder: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
}
