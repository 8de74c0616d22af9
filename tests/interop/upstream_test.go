package interop

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Upstream's own programs, `gazctl` and `gazette`, where they could be installed.
func TestUpstream(t *testing.T) {
	t.Parallel()
	if os.Getenv("INTEROP_UPSTREAM") == "" {
		t.Skip("upstream cannot be installed here")
	}
	verify(t, "gazctl apply, list, append, read, fragments against courant", upstreamGo, gazctlAgainstCourant)
	verify(t, "courant apply, append, read against upstream's broker", upstreamGo, courantAgainstGazette)
}

var upstreamGo = []string{"go.gazette.dev/core"}

// upstreamVersion is that of upstream's module, or why it is not there.
func upstreamVersion() string { return os.Getenv("INTEROP_UPSTREAM_VERSION") }

func upstream(name string) string { return filepath.Join(os.Getenv("INTEROP_UPSTREAM"), name) }

func upstreamJournals(store string) []byte {
	return fmt.Appendf(nil, `name: upstream/
replication: 1
fragment: {length: 1048576, compression_codec: SNAPPY, refresh_interval: 5s, stores: [%q]}
labels: [{name: content-type, value: application/x-ndjson}]
children: [{name: upstream/one}, {name: upstream/two}]
`, store)
}

// appendAndRead has a command line make journals of a broker, append to one and read it back.
func appendAndRead(t *testing.T, command, broker string) {
	t.Helper()
	dir := t.TempDir()
	journals := func(input []byte, args ...string) string {
		return run(t, command, append([]string{"journals"}, args...), dir, input, "BROKER_ADDRESS="+broker)
	}
	noise := make([]byte, 300000)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	content := []byte(base64.StdEncoding.EncodeToString(noise))
	journals(upstreamJournals("file:///"), "apply")
	if listed := journals(nil, "list"); !strings.Contains(listed, "upstream/one") {
		t.Fatalf("listed:\n%s", listed)
	}
	journals(content, "append", "-l", "name=upstream/one")
	if read := journals(nil, "read", "-l", "name=upstream/one"); !bytes.Equal([]byte(read), content) {
		t.Fatalf("read %d bytes of %d", len(read), len(content))
	}
	if fragments := journals(nil, "fragments", "-l", "name=upstream/one"); !strings.Contains(fragments, "upstream/one") {
		t.Fatalf("fragments:\n%s", fragments)
	}
}

func gazctlAgainstCourant(t *testing.T) {
	appendAndRead(t, upstream("gazctl"), alone(t).endpoint)
}

func courantAgainstGazette(t *testing.T) {
	etcd, err := startEtcd()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := directory()
	if err != nil {
		t.Fatal(err)
	}
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	_, err = start(upstream("gazette"), []string{"serve", fmt.Sprintf("--broker.port=%d", port), "--broker.host=127.0.0.1", "--broker.file-root=" + dir, "--etcd.address=" + etcd}, dir)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := fmt.Sprintf("http://127.0.0.1:%d", port)
	if err := awaitURL(endpoint + "/debug/ready"); err != nil {
		t.Fatal(err)
	}
	appendAndRead(t, program("courant"), endpoint)
}
