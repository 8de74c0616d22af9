package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"

	gogojson "github.com/gogo/protobuf/jsonpb"
	gogoproto "github.com/gogo/protobuf/proto"
	"github.com/grpc-ecosystem/grpc-gateway/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	gogopb "interop/gen/gogo/protocol"
	pb "interop/gen/protocol"
)

func TestGateway(t *testing.T) {
	t.Parallel()
	verify(t, "JSON gateway: listings are what grpc-gateway makes of the gRPC answer", with(gateway, protobuf, gogo), jsonList)
	verify(t, "JSON gateway: reads, in lines, of requests that Go marshalled", with(gateway, protobuf, gogo), jsonRead)
	verify(t, "JSON gateway: failures, CORS, methods", with(gateway, netHTTP), jsonFailures)
	verify(t, "journals over HTTP: GET, HEAD, PUT, headers, X-Route-Token", with(netHTTP, gogo), httpJournals)
	verify(t, "journals over HTTP: trailers, ranges, following, HTTP/2", netHTTP, httpStreams)
	verify(t, "journals over HTTP: a download that breaks off is resumed", netHTTP, httpResume)
}

// results posts a request and returns the results of the lines which answer it.
func results(t *testing.T, url, body string) []json.RawMessage {
	t.Helper()
	response, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s: %v", url, response)
	}
	var all []json.RawMessage
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var line struct {
			Result json.RawMessage `json:"result"`
		}
		strict := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&line); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		all = append(all, line.Result)
	}
	return all
}

// sameJSON demands equal JSON values, but for what Go's marshallers write as null: absent messages may be left out, and the
// bytes of `content` be an empty text.
func sameJSON(t *testing.T, what string, got, want []byte) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if err := json.Unmarshal(want, &b); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if !reflect.DeepEqual(withoutNull(a), withoutNull(b)) {
		t.Errorf("%s:\n%s\nexpected\n%s", what, got, want)
	}
}

func withoutNull(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for name, one := range value {
			if one == nil && name == "content" {
				value[name] = ""
			} else if one == nil {
				delete(value, name)
			} else {
				withoutNull(one)
			}
		}
	case []any:
		for _, one := range value {
			withoutNull(one)
		}
	}
	return value
}

// checkJSON holds JSON against the message that gRPC gave: each of Go's marshallers must read it as that message, and would
// have written the same.
func checkJSON(t *testing.T, got []byte, want proto.Message, asGogo gogoproto.Message) {
	t.Helper()
	read := want.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal(got, read); err != nil || !proto.Equal(read, want) {
		t.Errorf("protojson reads %v of\n%s\nexpected %v (%v)", read, got, want, err)
	}
	wire, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := gogoproto.Unmarshal(wire, asGogo); err != nil {
		t.Fatal(err)
	}
	readGogo := reflect.New(reflect.TypeOf(asGogo).Elem()).Interface().(gogoproto.Message)
	if err := gogojson.Unmarshal(bytes.NewReader(got), readGogo); err != nil || !gogoproto.Equal(readGogo, asGogo) {
		t.Errorf("gogo's jsonpb reads %v of\n%s\nexpected %v (%v)", readGogo, got, asGogo, err)
	}
	written, err := (&runtime.JSONPb{EmitDefaults: true}).Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, "grpc-gateway's marshaller", got, written)
	text, err := (&gogojson.Marshaler{EmitDefaults: true}).MarshalToString(asGogo)
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, "gogo's marshaller", got, []byte(text))
}

func jsonList(t *testing.T) {
	b := alone(t)
	full := spec("interop/json/full", pb.CompressionCodec_GZIP)
	full.Fragment.PathPostfixTemplate = `date={{ .Spool.FirstAppendTime.Format "2006-01-02" }}`
	full.Fragment.Retention.Seconds, full.Fragment.FlushInterval.Seconds, full.Fragment.RefreshInterval.Nanos = 3600, 90, 250000000
	full.MaxAppendRate, full.Flags = 1<<40, uint32(pb.JournalSpec_O_RDWR)
	b.create(t, full, spec("interop/json/plain", pb.CompressionCodec_NONE))
	for _, selector := range []*pb.LabelSelector{include("name", full.Name), include("prefix", "interop/json/"), include("name", "interop/json/absent")} {
		request := &pb.ListRequest{Selector: selector}
		body, err := (&runtime.JSONPb{EmitDefaults: true}).Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		got := results(t, b.endpoint+"/v1/journals/list", string(body))
		want := b.list(t, selector)
		if len(got) != 1 {
			t.Fatalf("%d lines", len(got))
		}
		// The header tells of when it was asked.
		listed := &pb.ListResponse{}
		if err := protojson.Unmarshal(got[0], listed); err != nil {
			t.Fatal(err)
		}
		want.Header.Etcd.Revision = listed.Header.Etcd.Revision
		checkJSON(t, got[0], want, &gogopb.ListResponse{})
	}
}

func jsonRead(t *testing.T) {
	b, name := alone(t), "interop/json/read"
	b.create(t, spec(name, pb.CompressionCodec_NONE))
	b.mustAppend(t, name, []byte("<first> \xff\x00 & \u2028 \"quoted\"\n"))
	b.mustAppend(t, name, []byte("second"))
	// Names as proto has them are taken too, and numbers as text or as numbers.
	for _, body := range []string{
		fmt.Sprintf(`{"journal":%q,"offset":"1"}`, name), fmt.Sprintf(`{"journal":%q,"offset":1,"endOffset":"0","beginModTime":"0"}`, name),
		fmt.Sprintf(`{"journal":%q,"offset":"1","begin_mod_time":"0","end_offset":0,"header":null}`, name),
	} {
		var got, want []byte
		lines := results(t, b.endpoint+"/v1/journals/read", body)
		for i, line := range lines {
			response := &pb.ReadResponse{}
			if err := protojson.Unmarshal(line, response); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			got = append(got, response.Content...)
			checkJSON(t, line, response, &gogopb.ReadResponse{})
			if last := i == len(lines)-1; last != (response.Status == pb.Status_OFFSET_NOT_YET_AVAILABLE) {
				t.Fatalf("line %d: %s", i, line)
			}
		}
		responses, err := b.read(within(t), &pb.ReadRequest{Journal: name, Offset: 1})
		if err != nil {
			t.Fatal(err)
		}
		if want = content(responses); !bytes.Equal(got, want) {
			t.Fatalf("%s: %q, expected %q", body, got, want)
		}
	}
}

func jsonFailures(t *testing.T) {
	b := alone(t)
	post := func(method, path, body string) (*http.Response, string) {
		request, err := http.NewRequestWithContext(within(t), method, b.endpoint+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Origin", "http://elsewhere")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, string(text)
	}
	for _, c := range []struct {
		body   string
		status int
	}{
		{`{"journal":"/bad"}`, http.StatusInternalServerError},
		{`{"journal":`, http.StatusBadRequest},
		{`{"offset":"x"}`, http.StatusBadRequest},
	} {
		response, text := post("POST", "/v1/journals/read", c.body)
		var failed struct {
			Error struct {
				GrpcCode   int    `json:"grpcCode"`
				HttpCode   int    `json:"httpCode"`
				Message    string `json:"message"`
				HttpStatus string `json:"httpStatus"`
			} `json:"error"`
			Code    int    `json:"code"`
			Message string `json:"message"`
		}
		err := json.Unmarshal([]byte(text), &failed)
		if response.StatusCode != c.status {
			t.Errorf("%s: %s %s (%v)", c.body, response.Status, text, err)
		}
		if c.status == http.StatusInternalServerError && (err != nil || failed.Error.GrpcCode != 2 || failed.Error.HttpCode != 500 || failed.Error.Message != "Journal: cannot begin with '/' (/bad)" || failed.Error.HttpStatus != "Internal Server Error") {
			t.Errorf("%s: %s (%v)", c.body, text, err)
		}
	}
	if response, _ := post("OPTIONS", "/v1/journals/list", ""); response.StatusCode != http.StatusOK || response.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("OPTIONS of an origin that is not allowed: %v", response)
	}
}

// do asks and returns the response with its whole body.
func do(t *testing.T, client *http.Client, request *http.Request) (*http.Response, []byte) {
	t.Helper()
	response, err := client.Do(request.WithContext(within(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", request.Method, request.URL, err)
	}
	return response, body
}

func request(t *testing.T, method, url string, body []byte, headers ...string) *http.Request {
	t.Helper()
	made, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		made.Header.Set(headers[i], headers[i+1])
	}
	return made
}

func httpJournals(t *testing.T) {
	b, name := alone(t), "interop/http/journal"
	b.create(t, spec(name, pb.CompressionCodec_NONE))
	url := b.endpoint + "/" + name
	put, _ := do(t, http.DefaultClient, request(t, "PUT", url, []byte("hello")))
	digest := hexSum(sum([]byte("hello")))
	if put.StatusCode != http.StatusNoContent || put.Header.Get("X-Commit-Begin") != "0" || put.Header.Get("X-Commit-End") != "5" ||
		put.Header.Get("X-Commit-SHA1-Sum") != digest || put.Header.Get("X-Write-Head") != "5" || put.Header.Get("Location") != url {
		t.Fatalf("PUT: %v", put)
	}
	// The token of the route is that message as gogo prints it.
	route := b.list(t, include("name", name)).Journals[0].Route
	wire, err := proto.Marshal(route)
	if err != nil {
		t.Fatal(err)
	}
	asGogo := unmarshalGogo[gogopb.Route](t, wire)
	if token := put.Header.Get("X-Route-Token"); token != strings.TrimSpace(gogoproto.CompactTextString(asGogo)) {
		t.Errorf("X-Route-Token: %q, expected %q", token, gogoproto.CompactTextString(asGogo))
	}
	read := &gogopb.Route{}
	if err := gogoproto.UnmarshalText(put.Header.Get("X-Route-Token"), read); err != nil || !gogoproto.Equal(read, asGogo) {
		t.Errorf("X-Route-Token is read as %v (%v)", read, err)
	}
	// An append of unknown length, as Go sends it: in chunks.
	chunked := request(t, "PUT", url, nil)
	chunked.Body, chunked.ContentLength = io.NopCloser(strings.NewReader(", world")), -1
	if response, _ := do(t, http.DefaultClient, chunked); response.StatusCode != http.StatusNoContent || response.Header.Get("X-Commit-Begin") != "5" {
		t.Fatalf("PUT in chunks: %v", response)
	}
	got, body := do(t, http.DefaultClient, request(t, "GET", url, nil))
	if got.StatusCode != http.StatusPartialContent || string(body) != "hello, world" || got.Header.Get("X-Write-Head") != "12" ||
		got.Header.Get("Content-Range") != "bytes 0-9223372036854775807/9223372036854775807" || got.Header.Get("X-Fragment-Name") == "" {
		t.Fatalf("GET: %v %q", got, body)
	}
	if _, body := do(t, http.DefaultClient, request(t, "GET", url+"?offset=7", nil)); string(body) != "world" {
		t.Errorf("GET from 7: %q", body)
	}
	head, body := do(t, http.DefaultClient, request(t, "HEAD", url+";meta?offset=2", nil))
	if head.StatusCode != http.StatusPartialContent || len(body) != 0 || head.Header.Get("X-Write-Head") != "12" {
		t.Errorf("HEAD: %v", head)
	}
	for _, c := range []struct {
		method, path string
		status       int
		text         string
	}{
		{"GET", "/interop/http/absent", http.StatusNotFound, "JOURNAL_NOT_FOUND"},
		{"GET", "/" + name + "?offset=12", http.StatusRequestedRangeNotSatisfiable, ""},
		{"GET", "/" + name + "?offset=x", http.StatusBadRequest, ""},
		{"GET", "/" + name + "?unknown=1", http.StatusBadRequest, ""},
		{"GET", "/" + name + "?offset=-2", http.StatusBadRequest, "invalid Offset (-2; expected -1 <= Offset <= MaxInt64)"},
		{"POST", "/" + name, http.StatusBadRequest, "unknown method: POST"},
		{"PUT", "/interop/http/absent", http.StatusInternalServerError, "JOURNAL_NOT_FOUND"},
	} {
		response, body := do(t, http.DefaultClient, request(t, c.method, b.endpoint+c.path, nil))
		if response.StatusCode != c.status || !strings.Contains(string(body), c.text) {
			t.Errorf("%s %s: %s %q", c.method, c.path, response.Status, body)
		}
	}
}

func httpStreams(t *testing.T) {
	b, name := alone(t), "interop/http/streams"
	b.create(t, spec(name, pb.CompressionCodec_SNAPPY))
	url := b.endpoint + "/" + name
	want := lines(4 << 10)
	if response, _ := do(t, http.DefaultClient, request(t, "PUT", url, want)); response.StatusCode != http.StatusNoContent {
		t.Fatalf("PUT: %v", response)
	}
	response, body := do(t, http.DefaultClient, request(t, "GET", url, nil, "TE", "trailers"))
	if !bytes.Equal(body, want) || len(response.Trailer.Values("X-Close-Error")) != 1 {
		t.Errorf("trailer: %v, %d bytes of %d", response.Trailer, len(body), len(want))
	}
	for _, c := range []struct {
		header string
		want   []byte
		told   string
	}{
		{"bytes=0-9", want[:10], fmt.Sprintf("bytes 0-9/%d", len(want))},
		{"bytes=1000-", want[1000:], fmt.Sprintf("bytes 1000-%d/%d", len(want)-1, len(want))},
		{"bytes=-7", want[len(want)-7:], fmt.Sprintf("bytes %d-%d/%d", len(want)-7, len(want)-1, len(want))},
		{"bytes=5-99999999", want[5:], fmt.Sprintf("bytes 5-%d/%d", len(want)-1, len(want))},
	} {
		response, body := do(t, http.DefaultClient, request(t, "GET", url, nil, "Range", c.header))
		if response.StatusCode != http.StatusPartialContent || !bytes.Equal(body, c.want) || response.Header.Get("Content-Range") != c.told || response.ContentLength != int64(len(c.want)) {
			t.Errorf("%s: %v, %d bytes of %d", c.header, response, len(body), len(c.want))
		}
	}
	beyond, _ := do(t, http.DefaultClient, request(t, "GET", url, nil, "Range", fmt.Sprintf("bytes=%d-", len(want))))
	if beyond.StatusCode != http.StatusRequestedRangeNotSatisfiable || beyond.Header.Get("Content-Range") != fmt.Sprintf("bytes */%d", len(want)) {
		t.Errorf("a range beyond the end: %v", beyond)
	}
	// HTTP/2 without TLS, by what Go knows of it.
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	second := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	response, body = do(t, second, request(t, "GET", url+"?offset=3", nil))
	if response.ProtoMajor != 2 || !bytes.Equal(body, want[3:]) || len(response.Trailer.Values("X-Close-Error")) != 1 {
		t.Errorf("over HTTP/2: %v, trailer %v", response, response.Trailer)
	}
	// A reader that waits gets what is appended while it does.
	following, err := second.Do(request(t, "GET", fmt.Sprintf("%s?block=true&offset=%d", url, len(want)-1), nil).WithContext(within(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer following.Body.Close()
	b.mustAppend(t, name, []byte("more"))
	got := make([]byte, 5)
	if _, err := io.ReadFull(following.Body, got); err != nil || string(got) != string(want[len(want)-1:])+"more" {
		t.Errorf("following: %q %v", got, err)
	}
}

// A download that breaks off goes on where it ended, by what Go's library says of ranges.
func httpResume(t *testing.T) {
	b, name := alone(t), "interop/http/resume"
	b.create(t, spec(name, pb.CompressionCodec_ZSTANDARD))
	want := lines(40 << 10)
	url := b.endpoint + "/" + name
	if response, _ := do(t, http.DefaultClient, request(t, "PUT", url, want)); response.StatusCode != http.StatusNoContent {
		t.Fatalf("PUT: %v", response)
	}
	file, err := os.Create(t.TempDir() + "/download")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	attempts := 0
	for size := int64(0); size < int64(len(want)); attempts++ {
		response, err := http.DefaultClient.Do(request(t, "GET", url, nil, "Range", fmt.Sprintf("bytes=%d-", size)).WithContext(within(t)))
		if err != nil {
			t.Fatal(err)
		}
		// The connection is closed after a part of it, as a client that is interrupted does.
		n, err := io.CopyN(file, response.Body, 700000)
		response.Body.Close()
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		size += n
	}
	got, err := os.ReadFile(file.Name())
	if err != nil || !bytes.Equal(got, want) || attempts < 2 {
		t.Fatalf("%d bytes of %d after %d attempts: %v", len(got), len(want), attempts, err)
	}
}
