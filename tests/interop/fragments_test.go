package interop

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	datadog "github.com/DataDog/zstd"
	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "interop/gen/protocol"
)

func TestFragments(t *testing.T) {
	t.Parallel()
	verify(t, "ListFragments: pages, times, signed URLs", grpcGo, fragmentsList)
	verify(t, "stored fragments decompress in Go, whole and with their SHA-1", with(gzipGo, snappyGo, klauspost, dataDog), fragmentsFromCourant)
	verify(t, "fragments written by Go are indexed and read, from any offset", with(gzipGo, snappyGo, klauspost, dataDog), fragmentsFromGo)
	verify(t, "FragmentStoreHealth: a store that works, one that nobody names", grpcGo, storeHealth)
}

var codecs = []pb.CompressionCodec{
	pb.CompressionCodec_NONE, pb.CompressionCodec_GZIP, pb.CompressionCodec_ZSTANDARD, pb.CompressionCodec_SNAPPY,
}

// How Go reads and writes files of a codec, and what their names end with.
type goCodec struct {
	name   string
	codec  pb.CompressionCodec
	suffix string
	reader func(io.Reader) (io.Reader, error)
	writer func(io.Writer) io.WriteCloser
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

var goCodecs = []goCodec{
	{"plain", pb.CompressionCodec_NONE, ".raw",
		func(r io.Reader) (io.Reader, error) { return r, nil },
		func(w io.Writer) io.WriteCloser { return nopCloser{w} }},
	{"compress/gzip", pb.CompressionCodec_GZIP, ".gz",
		func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }},
	{"klauspost/compress/zstd", pb.CompressionCodec_ZSTANDARD, ".zst",
		func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
		func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z }},
	{"DataDog/zstd", pb.CompressionCodec_ZSTANDARD, ".zst",
		func(r io.Reader) (io.Reader, error) { return datadog.NewReader(r), nil },
		func(w io.Writer) io.WriteCloser { return datadog.NewWriter(w) }},
	{"golang/snappy", pb.CompressionCodec_SNAPPY, ".sz",
		func(r io.Reader) (io.Reader, error) { return snappy.NewReader(r), nil },
		func(w io.Writer) io.WriteCloser { return snappy.NewBufferedWriter(w) }},
}

// lines is about 40 bytes for each of n lines, which compress, but not to nothing.
func lines(n int) []byte {
	var text bytes.Buffer
	for i := range n {
		fmt.Fprintf(&text, "{\"line\":%d,\"of\":\"%x\"}\n", i, sha1.Sum([]byte{byte(i), byte(i >> 8)}))
	}
	return text.Bytes()
}

// appendLines appends content in pieces, so that fragments fill one after another.
func (b *broker) appendLines(t *testing.T, name string, content []byte) {
	t.Helper()
	for len(content) > 0 {
		n := min(len(content), 8<<10)
		b.mustAppend(t, name, content[:n])
		content = content[n:]
	}
}

// fragments lists all pages of a journal's fragments.
func (b *broker) fragmentsOf(t *testing.T, request *pb.FragmentsRequest) []*pb.FragmentsResponse_XFragment {
	t.Helper()
	all, err := b.tryFragments(within(t), request)
	if err != nil {
		t.Fatalf("fragments of %s: %v", request.Journal, err)
	}
	return all
}

func (b *broker) tryFragments(ctx context.Context, request *pb.FragmentsRequest) ([]*pb.FragmentsResponse_XFragment, error) {
	var all []*pb.FragmentsResponse_XFragment
	for {
		response, err := b.journal.ListFragments(ctx, request)
		if err == nil && response.Status != pb.Status_OK {
			err = errors.New(response.Status.String())
		}
		if err != nil {
			return nil, err
		}
		all = append(all, response.Fragments...)
		if response.NextPageToken == 0 {
			return all, nil
		}
		request = proto.CloneOf(request)
		request.NextPageToken = response.NextPageToken
	}
}

// awaitStored waits until at least n fragments of a journal are in its store and in its index.
func (b *broker) awaitStored(t *testing.T, name string, n int) []*pb.FragmentsResponse_XFragment {
	t.Helper()
	var stored []*pb.FragmentsResponse_XFragment
	eventually(t, fmt.Sprintf("%d fragments of %s are stored", n, name), func() error {
		stored = nil
		all, err := b.tryFragments(within(t), &pb.FragmentsRequest{Journal: name, SignatureTTL: durationpb.New(time.Minute)})
		if err != nil {
			return err
		}
		for _, fragment := range all {
			if fragment.Spec.ModTime != 0 {
				stored = append(stored, fragment)
			}
		}
		if len(stored) < n {
			return fmt.Errorf("%d are", len(stored))
		}
		return nil
	})
	return stored
}

func fragmentsList(t *testing.T) {
	b, name := alone(t), "interop/fragments/list"
	listed := spec(name, pb.CompressionCodec_SNAPPY)
	listed.Fragment.Length = 1 << 14
	b.create(t, listed)
	b.appendLines(t, name, lines(2<<10))
	stored := b.awaitStored(t, name, 4)
	for i, fragment := range stored {
		if i > 0 && fragment.Spec.Begin != stored[i-1].Spec.End {
			t.Fatalf("fragment %d begins at %d, after one that ends at %d", i, fragment.Spec.Begin, stored[i-1].Spec.End)
		}
		if fragment.Spec.Journal != name || fragment.Spec.BackingStore != "file:///" || !strings.HasPrefix(fragment.SignedUrl, "file:///"+name+"/") {
			t.Fatalf("fragment: %v", fragment)
		}
	}
	// Pages hold as many as asked for, and the next one begins where the token says.
	page, err := b.journal.ListFragments(within(t), &pb.FragmentsRequest{Journal: name, PageLimit: 2})
	if err != nil || len(page.Fragments) != 2 || page.NextPageToken != stored[2].Spec.Begin || page.Fragments[0].SignedUrl != "" {
		t.Fatalf("a page of two: %v %v", page, err)
	}
	last := stored[len(stored)-1].Spec
	// More may be stored by now: the page after a token begins with the fragment that it names.
	page, err = b.journal.ListFragments(within(t), &pb.FragmentsRequest{Journal: name, NextPageToken: last.Begin, EndModTime: last.ModTime, PageLimit: 1})
	if err != nil || len(page.Fragments) != 1 || page.Fragments[0].Spec.Begin != last.Begin {
		t.Fatalf("from the last token: %v %v", page, err)
	}
	if got := b.fragmentsOf(t, &pb.FragmentsRequest{Journal: name, BeginModTime: last.ModTime + 1000, EndModTime: last.ModTime + 2000}); len(got) != 0 {
		t.Fatalf("of a time to come: %v", got)
	}
	absent, err := b.journal.ListFragments(within(t), &pb.FragmentsRequest{Journal: "interop/fragments/absent"})
	if err != nil || absent.Status != pb.Status_JOURNAL_NOT_FOUND {
		t.Fatalf("of an absent journal: %v %v", absent, err)
	}
}

func fragmentsFromCourant(t *testing.T) {
	b := alone(t)
	// More than one block of compression in a fragment, and many fragments of one.
	for _, codec := range goCodecs {
		t.Run(codec.name, func(t *testing.T) {
			name := "interop/fragments/courant/" + strings.ReplaceAll(codec.name, "/", "-")
			many := spec(name, codec.codec)
			many.Fragment.Length = 3 << 20
			b.create(t, many)
			want := bytes.Repeat(lines(16<<10), 8)
			for rest := want; len(rest) > 0; {
				n := min(len(rest), 1<<20)
				b.mustAppend(t, name, rest[:n])
				rest = rest[n:]
			}
			multi := false
			for _, fragment := range b.awaitStored(t, name, 2) {
				path, ok := strings.CutPrefix(fragment.SignedUrl, "file://")
				if !ok || fragment.Spec.CompressionCodec != codec.codec {
					t.Fatalf("fragment: %v", fragment)
				}
				expected := fmt.Sprintf("/%s/%016x-%016x-%s%s", name, fragment.Spec.Begin, fragment.Spec.End, hexSum(fragment.Spec.Sum), codec.suffix)
				if path != expected {
					t.Fatalf("stored at %s, expected %s", path, expected)
				}
				file, err := os.Open(filepath.Join(b.fragments, path))
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				reader, err := codec.reader(file)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(reader)
				if err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				if !bytes.Equal(got, want[fragment.Spec.Begin:fragment.Spec.End]) || !proto.Equal(fragment.Spec.Sum, sum(got)) {
					t.Fatalf("%s: content differs", path)
				}
				multi = multi || len(got) > 2<<20
			}
			if !multi {
				t.Fatal("no fragment was longer than two blocks")
			}
		})
	}
}

func fragmentsFromGo(t *testing.T) {
	b := alone(t)
	for _, codec := range goCodecs {
		t.Run(codec.name, func(t *testing.T) {
			name := "interop/fragments/go/" + strings.ReplaceAll(codec.name, "/", "-")
			dir := filepath.Join(b.fragments, name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			// Three fragments, the second below a path of its own, as postfix templates make them. The last one is of several
			// batches, each ended by itself: members of gzip, frames of Zstandard, streams of snappy.
			want := lines(20 << 10)
			cuts := []int{0, 100, len(want) / 3, len(want)}
			for i := range 3 {
				part := want[cuts[i]:cuts[i+1]]
				var file bytes.Buffer
				for _, batch := range [][]byte{part[:len(part)/2], part[len(part)/2:]} {
					writer := codec.writer(&file)
					if _, err := writer.Write(batch); err != nil {
						t.Fatal(err)
					}
					if err := writer.Close(); err != nil {
						t.Fatal(err)
					}
				}
				postfix := []string{"", "date=2026-01-02/hour=03", ""}[i]
				path := filepath.Join(dir, postfix, fmt.Sprintf("%016x-%016x-%x%s", cuts[i], cuts[i+1], sha1.Sum(part), codec.suffix))
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, file.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			response, err := b.journal.Apply(within(t), &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{{Upsert: spec(name, pb.CompressionCodec_SNAPPY)}}})
			if err != nil || response.Status != pb.Status_OK {
				t.Fatalf("Apply: %v %v", response, err)
			}
			found := b.awaitStored(t, name, 3)
			if len(found) != 3 || found[1].Spec.PathPostfix != "date=2026-01-02/hour=03" || found[2].Spec.CompressionCodec != codec.codec {
				t.Fatalf("fragments: %v", found)
			}
			for _, offset := range []int{0, 99, 100, 5000, cuts[2] - 1, cuts[2] + 300000, len(want) - 1} {
				responses, err := b.read(within(t), &pb.ReadRequest{Journal: name, Offset: int64(offset)})
				if err != nil || !bytes.Equal(content(responses), want[offset:]) {
					t.Fatalf("from %d: %d bytes of %d, %v", offset, len(content(responses)), len(want)-offset, err)
				}
			}
			// Nobody has a spool of it: the journal goes on once it is told where.
			refused, err := b.append(within(t), &pb.AppendRequest{Journal: name}, []byte("x"))
			if err != nil || refused.Status != pb.Status_INDEX_HAS_GREATER_OFFSET {
				t.Fatalf("an append behind the index: %v %v", refused, err)
			}
			end := int64(len(want))
			reset, err := b.append(within(t), &pb.AppendRequest{Journal: name, Offset: end, Suspend: pb.AppendRequest_SUSPEND_KEEP})
			if err != nil || reset.Status != pb.Status_OK {
				t.Fatalf("reset of the head: %v %v", reset, err)
			}
			if after := b.mustAppend(t, name, []byte("and on")); after.Commit.Begin != end {
				t.Fatalf("after the reset: %v", after.Commit)
			}
		})
	}
}

func storeHealth(t *testing.T) {
	b, name := alone(t), "interop/fragments/health"
	b.create(t, spec(name, pb.CompressionCodec_NONE))
	healthy, err := b.journal.FragmentStoreHealth(within(t), &pb.FragmentStoreHealthRequest{FragmentStore: "file:///"})
	if err != nil || healthy.Status != pb.Status_OK || healthy.StoreHealthError != "" || healthy.Header.Route.Primary != -1 {
		t.Fatalf("a store that works: %v %v", healthy, err)
	}
	if _, err := b.journal.FragmentStoreHealth(within(t), &pb.FragmentStoreHealthRequest{FragmentStore: "ftp://host/"}); err == nil || !strings.Contains(err.Error(), "invalid scheme (ftp)") {
		t.Fatalf("a scheme that is none: %v", err)
	}
}
