package interop

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "interop/gen/protocol"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	verify(t, "tokens that Go signed: what each allows, on every RPC", with(jwtGo, grpcGo), tokensAllow)
	verify(t, "tokens are accepted and refused as Go's library does", with(jwtGo, grpcGo), tokensAgree)
	verify(t, "reads and watches end cleanly when their token expires", with(jwtGo, grpcGo), tokensExpire)
	verify(t, "tokens of `courant token`, opened in Go", jwtGo, tokensFromCourant)
	verify(t, "tokens over HTTP: the journal gateway and the JSON gateway", with(jwtGo, netHTTP), tokensHTTP)
}

const (
	capList = 2 << iota
	capApply
	capRead
	capAppend
	capAll = 1<<32 - 1
)

var (
	firstKey  = []byte("the first key of interop")
	secondKey = []byte("another key, which verifies")
)

// guarded is a broker with keys.
var guarded = shared(func() (*broker, error) {
	keys := base64.StdEncoding.EncodeToString(firstKey) + "," + base64.StdEncoding.EncodeToString(secondKey)
	return startBroker("", nil, "BROKER_AUTH_KEYS="+keys)
})

// Claims as Go programs of the protocol have them.
type claims struct {
	Capability uint32      `json:"cap"`
	Selector   selectorSet `json:"sel"`
	jwt.RegisteredClaims
}

type selectorSet struct {
	Include labelSet `json:"include"`
	Exclude labelSet `json:"exclude"`
}

type labelSet struct {
	Labels []label `json:"labels"`
}

type label struct {
	Name   string `json:"name,omitempty"`
	Value  string `json:"value,omitempty"`
	Prefix bool   `json:"prefix,omitempty"`
}

func claim(capability uint32, labels ...label) claims {
	now := time.Now()
	return claims{capability, selectorSet{Include: labelSet{labels}}, jwt.RegisteredClaims{
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(time.Hour)),
	}}
}

func sign(t *testing.T, claims jwt.Claims, method jwt.SigningMethod, key any) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func bearer(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// createGuarded makes journals of the guarded broker, whatever row comes first.
func createGuarded(t *testing.T, names ...string) *broker {
	t.Helper()
	b := guarded(t)
	ctx := bearer(within(t), sign(t, claim(capAll), jwt.SigningMethodHS256, firstKey))
	request := &pb.ApplyRequest{}
	for _, name := range names {
		request.Changes = append(request.Changes, &pb.ApplyRequest_Change{ExpectModRevision: -1, Upsert: spec(name, pb.CompressionCodec_NONE)})
	}
	if response, err := b.journal.Apply(ctx, request); err != nil || response.Status != pb.Status_OK {
		t.Fatalf("Apply: %v %v", response, err)
	}
	for _, name := range names {
		eventually(t, name+" has a primary", func() error {
			response, err := b.append(ctx, &pb.AppendRequest{Journal: name}, []byte("content"))
			if err == nil && response.Status != pb.Status_OK {
				err = fmt.Errorf("%v", response.Status)
			}
			return err
		})
	}
	return b
}

func tokensAllow(t *testing.T) {
	one, two := "interop/tokens/one", "interop/tokens/two"
	b := createGuarded(t, one, two)
	calls := map[string]func(ctx context.Context, name string) (string, error){
		"LIST": func(ctx context.Context, _ string) (string, error) {
			stream, err := b.journal.List(ctx, &pb.ListRequest{})
			if err != nil {
				return "", err
			}
			response, err := stream.Recv()
			var names []string
			for _, journal := range response.GetJournals() {
				names = append(names, journal.Spec.Name[len(journal.Spec.Name)-3:])
			}
			return strings.Join(names, " "), err
		},
		"APPLY": func(ctx context.Context, name string) (string, error) {
			response, err := b.journal.Apply(ctx, &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{{ExpectModRevision: 1, Upsert: spec(name, pb.CompressionCodec_NONE)}}})
			return response.GetStatus().String(), err
		},
		"READ": func(ctx context.Context, name string) (string, error) {
			responses, err := b.read(ctx, &pb.ReadRequest{Journal: name, MetadataOnly: true})
			if err != nil {
				return "", err
			}
			return responses[0].Status.String(), nil
		},
		"APPEND": func(ctx context.Context, name string) (string, error) {
			response, err := b.append(ctx, &pb.AppendRequest{Journal: name})
			return response.GetStatus().String(), err
		},
	}
	names := []label{{Name: "name", Value: one}}
	bits := map[string]uint32{"LIST": capList, "APPLY": capApply, "READ": capRead, "APPEND": capAppend}
	for rpc, call := range calls {
		// The capability, and no other, lets it pass.
		for capability, bit := range bits {
			outcome, err := call(bearer(within(t), sign(t, claim(bit), jwt.SigningMethodHS256, firstKey)), one)
			if capability == rpc {
				if err != nil {
					t.Errorf("%s with its capability: %v", rpc, err)
				}
				continue
			}
			_ = outcome
			wantError(t, rpc+" with "+capability, err, codes.Unauthenticated, "authorization is missing required "+rpc+" capability")
		}
		_, err := call(within(t), one)
		wantError(t, rpc+" without token", err, codes.Unauthenticated, "missing or empty Authorization token")
		_, err = call(metadata.AppendToOutgoingContext(within(t), "authorization", "Basic abc"), one)
		wantError(t, rpc+" with another scheme", err, codes.Unauthenticated, "invalid or unsupported Authorization header (expected 'Bearer')")
		// What the selector does not match is as if it were not there, and not told from what is not.
		limited := bearer(within(t), sign(t, claim(capAll, names...), jwt.SigningMethodHS256, firstKey))
		outcome, err := call(limited, two)
		switch rpc {
		case "APPLY":
			wantError(t, "APPLY beyond the selector", err, codes.Unauthenticated, "not authorized to "+two)
		case "LIST":
			if err != nil || outcome != "one" {
				t.Errorf("LIST with a selector: %q %v", outcome, err)
			}
		default:
			if err != nil || outcome != "JOURNAL_NOT_FOUND" {
				t.Errorf("%s beyond the selector: %q %v", rpc, outcome, err)
			}
			within, err := call(limited, one)
			if err != nil || within != "OK" {
				t.Errorf("%s within the selector: %q %v", rpc, within, err)
			}
		}
	}
	// By a label, by a prefix, and all but one.
	for _, c := range []struct {
		selector selectorSet
		want     string
	}{
		{selectorSet{Include: labelSet{[]label{{Name: "name", Value: "interop/tokens/o", Prefix: true}}}}, "one"},
		{selectorSet{Include: labelSet{[]label{{Name: "app.gazette.dev/managed-by"}}}, Exclude: labelSet{names}}, "two"},
		{selectorSet{Include: labelSet{[]label{{Name: "app.gazette.dev/managed-by", Value: "nobody"}}}}, ""},
	} {
		claims := claim(capList)
		claims.Selector = c.selector
		if got, err := calls["LIST"](bearer(within(t), sign(t, claims, jwt.SigningMethodHS256, secondKey)), ""); err != nil || got != c.want {
			t.Errorf("LIST with %v: %q %v, expected %q", c.selector, got, err, c.want)
		}
	}
}

// Every token is opened by golang-jwt as Gazette's brokers are set up, and sent to Courant: both must say the same.
func tokensAgree(t *testing.T) {
	b := createGuarded(t, "interop/tokens/one")
	parser := jwt.NewParser(jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(5*time.Second), jwt.WithValidMethods([]string{"HS256", "HS384"}))
	opens := func(token string) error {
		var err error
		for _, key := range [][]byte{firstKey, secondKey} {
			if _, err = parser.ParseWithClaims(token, &claims{}, func(*jwt.Token) (any, error) { return key, nil }); err == nil {
				return nil
			}
		}
		return err
	}
	now := time.Now().Unix()
	base := func() jwt.MapClaims { return jwt.MapClaims{"cap": capList, "iat": now, "exp": now + 3600} }
	changed := func(pairs ...any) jwt.MapClaims {
		claims := base()
		for i := 0; i < len(pairs); i += 2 {
			claims[pairs[i].(string)] = pairs[i+1]
		}
		return claims
	}
	none := func() jwt.MapClaims { claims := base(); delete(claims, "exp"); return claims }()
	good := sign(t, base(), jwt.SigningMethodHS256, firstKey)
	parts := strings.Split(good, ".")
	cases := map[string]string{
		"HS256 of the first key":               good,
		"HS256 of the second key":              sign(t, base(), jwt.SigningMethodHS256, secondKey),
		"HS384":                                sign(t, base(), jwt.SigningMethodHS384, firstKey),
		"HS512":                                sign(t, base(), jwt.SigningMethodHS512, firstKey),
		"no algorithm":                         sign(t, base(), jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType),
		"another key":                          sign(t, base(), jwt.SigningMethodHS256, []byte("of somebody else")),
		"the key of AA==":                      sign(t, base(), jwt.SigningMethodHS256, []byte{0}),
		"an empty key":                         sign(t, base(), jwt.SigningMethodHS256, []byte{}),
		"without expiry":                       sign(t, none, jwt.SigningMethodHS256, firstKey),
		"expired":                              sign(t, changed("exp", now-60), jwt.SigningMethodHS256, firstKey),
		"an expiry with a fraction":            sign(t, changed("exp", float64(now)+99.5), jwt.SigningMethodHS256, firstKey),
		"issued later":                         sign(t, changed("iat", now+600), jwt.SigningMethodHS256, firstKey),
		"issued later by less than the leeway": sign(t, changed("iat", now+3), jwt.SigningMethodHS256, firstKey),
		"not valid yet":                        sign(t, changed("nbf", now+600), jwt.SigningMethodHS256, firstKey),
		"valid since a while":                  sign(t, changed("nbf", now-600), jwt.SigningMethodHS256, firstKey),
		"registered claims":                    sign(t, changed("iss", "me", "sub", "you", "aud", []string{"all", "none"}, "jti", "1"), jwt.SigningMethodHS256, firstKey),
		"claims of others":                     sign(t, changed("name", "x", "roles", []int{1, 2}), jwt.SigningMethodHS256, firstKey),
		"a capability that is no number":       sign(t, changed("cap", "LIST"), jwt.SigningMethodHS256, firstKey),
		"a negative capability":                sign(t, changed("cap", -1), jwt.SigningMethodHS256, firstKey),
		"a capability of 33 bits":              sign(t, changed("cap", int64(1)<<32|capList), jwt.SigningMethodHS256, firstKey),
		"a null selector":                      sign(t, changed("sel", nil), jwt.SigningMethodHS256, firstKey),
		"null labels":                          sign(t, changed("sel", map[string]any{"include": map[string]any{"labels": nil}}), jwt.SigningMethodHS256, firstKey),
		"a selector that is text":              sign(t, changed("sel", "name=x"), jwt.SigningMethodHS256, firstKey),
		"no token":                             "abc",
		"two parts":                            parts[0] + "." + parts[1],
		"four parts":                           good + ".x",
		"a cut signature":                      good[:len(good)-3],
		"other claims under the signature":     parts[0] + "." + strings.Split(sign(t, claim(capAll), jwt.SigningMethodHS256, secondKey), ".")[1] + "." + parts[2],
		"no signature":                         parts[0] + "." + parts[1] + ".",
	}
	accepted, refused := 0, 0
	for what, token := range cases {
		want := opens(token)
		stream, err := b.journal.List(bearer(within(t), token), &pb.ListRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if (want == nil) != (err == nil) {
			t.Errorf("%s: Go's library says %v, Courant %v", what, want, err)
		}
		if err == nil {
			accepted++
			continue
		}
		refused++
		if got := status.Convert(err); got.Code() != codes.Unauthenticated || !strings.HasPrefix(got.Message(), "verifying Authorization: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Within the leeway a token is good, and its request has no time left.
	late := sign(t, changed("exp", now-1), jwt.SigningMethodHS256, firstKey)
	stream, err := b.journal.List(bearer(within(t), late), &pb.ListRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if opens(late) != nil || status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("expired by less than the leeway: Go's library says %v, Courant %v", opens(late), err)
	}
	if accepted < 10 || refused < 15 {
		t.Errorf("%d accepted, %d refused", accepted, refused)
	}
}

func tokensExpire(t *testing.T) {
	name := "interop/tokens/expire"
	b := createGuarded(t, name)
	short := claim(capRead|capList, label{Name: "name", Value: name})
	short.ExpiresAt = jwt.NewNumericDate(time.Now().Add(5 * time.Second))
	ctx := bearer(within(t), sign(t, short, jwt.SigningMethodHS256, firstKey))
	reader, err := b.journal.Read(ctx, &pb.ReadRequest{Journal: name, Block: true})
	if err != nil {
		t.Fatal(err)
	}
	watch, err := b.journal.List(ctx, &pb.ListRequest{Watch: true})
	if err != nil {
		t.Fatal(err)
	}
	received := 0
	for err == nil {
		_, err = reader.Recv()
		received++
	}
	if err != io.EOF || received < 2 {
		t.Errorf("a read whose token expired ended with %v after %d messages", err, received)
	}
	received, err = 0, nil
	for err == nil {
		_, err = watch.Recv()
		received++
	}
	if err != io.EOF || received < 2 {
		t.Errorf("a watch whose token expired ended with %v after %d messages", err, received)
	}
}

func tokensFromCourant(t *testing.T) {
	dir := t.TempDir()
	key := base64.StdEncoding.EncodeToString(firstKey)
	before := time.Now().Add(-time.Second)
	out := run(t, program("courant"), []string{"token", "--allow=LIST,APPEND", "-l", "name:prefix=a/, app.gazette.dev/region != b", "--lifetime=90m", "--subject=me"}, dir, nil, "BROKER_AUTH_KEYS="+key)
	var got claims
	token, err := jwt.NewParser(jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding()).ParseWithClaims(strings.TrimSuffix(out, "\n"), &got, func(*jwt.Token) (any, error) { return firstKey, nil })
	if err != nil || token.Method.Alg() != "HS256" || token.Header["typ"] != "JWT" {
		t.Fatalf("%s: %v", out, err)
	}
	want := selectorSet{labelSet{[]label{{"name", "a/", true}}}, labelSet{[]label{{"app.gazette.dev/region", "b", false}}}}
	if got.Capability != capList|capAppend || fmt.Sprint(got.Selector) != fmt.Sprint(want) || got.Subject != "me" {
		t.Fatalf("claims: %+v", got)
	}
	lifetime := got.ExpiresAt.Sub(got.IssuedAt.Time)
	if lifetime != 90*time.Minute || got.IssuedAt.Before(before.Truncate(time.Second)) {
		t.Fatalf("issued at %v, for %v", got.IssuedAt, lifetime)
	}
	// Decoders in Go know each of its claims.
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(out, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	strict := json.NewDecoder(strings.NewReader(string(raw)))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&claims{}); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	// And it lets its holder in.
	b := createGuarded(t, "interop/tokens/one")
	stream, err := b.journal.List(bearer(within(t), strings.TrimSpace(out)), &pb.ListRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func tokensHTTP(t *testing.T) {
	name := "interop/tokens/http"
	b := createGuarded(t, name)
	ask := func(method, path, body, token string) int {
		request, err := http.NewRequestWithContext(within(t), method, b.endpoint+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	reads := sign(t, claim(capRead), jwt.SigningMethodHS256, firstKey)
	appends := sign(t, claim(capAppend), jwt.SigningMethodHS256, firstKey)
	lists := sign(t, claim(capList), jwt.SigningMethodHS256, firstKey)
	elsewhere := sign(t, claim(capAll, label{Name: "name", Value: "interop/other"}), jwt.SigningMethodHS256, firstKey)
	for _, c := range []struct {
		method, path, body, token string
		want                      int
	}{
		{"GET", "/" + name, "", reads, 206},
		{"GET", "/" + name, "", appends, 401},
		{"GET", "/" + name, "", "", 401},
		{"GET", "/" + name, "", elsewhere, 404},
		{"PUT", "/" + name, "x", appends, 204},
		{"PUT", "/" + name, "x", reads, 401},
		{"POST", "/v1/journals/list", "{}", lists, 200},
		{"POST", "/v1/journals/list", "{}", reads, 401},
		{"POST", "/v1/journals/list", "{}", "", 401},
	} {
		if got := ask(c.method, c.path, c.body, c.token); got != c.want {
			t.Errorf("%s %s: %d, expected %d", c.method, c.path, got, c.want)
		}
	}
}
