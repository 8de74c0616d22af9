package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jessevdk/go-flags"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	verify(t, "`courant print-config` is read by go-flags, value by value", goFlags, configFromCourant)
	verify(t, "an INI file that go-flags wrote configures Courant", goFlags, configFromGo)
	verify(t, "flags, INI file, environment, defaults: the same one counts", goFlags, configPrecedence)
	verify(t, "empty variables and empty flags are taken alike", goFlags, configEmpty)
}

// Options of a broker as Gazette's programs declare them: names of groups, fields and variables.
type options struct {
	Broker struct {
		Zone            string        `long:"zone" env:"ZONE" default:"local" description:"Failure zone"`
		ID              string        `long:"id" env:"ID" description:"Identity"`
		Host            string        `long:"host" env:"HOST" description:"Host name"`
		Port            string        `long:"port" env:"PORT" description:"Port"`
		MaxGRPCRecvSize uint32        `long:"max-grpc-recv-size" env:"MAX_GRPC_RECV_SIZE" default:"4194304" description:"Message size"`
		AllowOrigin     []string      `long:"allow-origin" env:"ALLOW_ORIGIN" env-delim:"," description:"Origins"`
		Limit           uint32        `long:"limit" env:"LIMIT" default:"1024" description:"Journals"`
		FileRoot        string        `long:"file-root" env:"FILE_ROOT" description:"Root of files"`
		FileOnly        bool          `long:"file-only" env:"FILE_ONLY" description:"Files for all stores"`
		MaxAppendRate   uint32        `long:"max-append-rate" env:"MAX_APPEND_RATE" default:"0" description:"Bytes per second"`
		MaxReplication  int32         `long:"max-replication" env:"MAX_REPLICATION" default:"9" description:"Replicas"`
		MinAppendRate   uint32        `long:"min-append-rate" env:"MIN_APPEND_RATE" default:"65536" description:"Bytes per second"`
		WatchDelay      time.Duration `long:"watch-delay" env:"WATCH_DELAY" default:"30ms" description:"Delay"`
		AutoSuspend     bool          `long:"auto-suspend" env:"AUTO_SUSPEND" description:"Suspend"`
		ServerCertFile  string        `long:"server-cert-file" env:"SERVER_CERT_FILE" description:"Certificate"`
	} `group:"Broker" namespace:"broker" env-namespace:"BROKER"`
	Etcd struct {
		Address  string        `long:"address" env:"ADDRESS" description:"Etcd"`
		LeaseTTL time.Duration `long:"lease" env:"LEASE_TTL" default:"20s" description:"Lease"`
		Prefix   string        `long:"prefix" env:"PREFIX" description:"Prefix"`
		CertFile string        `long:"cert-file" env:"CERT_FILE" description:"Certificate"`
	} `group:"Etcd" namespace:"etcd" env-namespace:"ETCD"`
	Log struct {
		Level  string `long:"level" env:"LEVEL" default:"warn" choice:"trace" choice:"debug" choice:"info" choice:"warn" choice:"error" choice:"fatal" description:"Level"`
		Format string `long:"format" env:"FORMAT" default:"text" choice:"json" choice:"text" choice:"color" description:"Format"`
	} `group:"Logging" namespace:"log" env-namespace:"LOG"`
	Debug struct {
		Port    string `long:"port" env:"PORT" description:"Port"`
		Private bool   `long:"private" env:"PRIVATE" description:"Private"`
	} `group:"Debug" namespace:"debug" env-namespace:"DEBUG"`
}

// parse reads an INI file and then flags, as Gazette's programs do. Options that only Courant has are passed over.
func parse(t *testing.T, ini string, args []string) options {
	t.Helper()
	parsed, err := tryParse(ini, args)
	if err != nil {
		t.Fatalf("%v in:\n%s", err, ini)
	}
	return parsed
}

func tryParse(ini string, args []string) (parsed options, err error) {
	parser := flags.NewParser(&parsed, flags.IgnoreUnknown)
	if ini != "" {
		err = flags.NewIniParser(parser).Parse(strings.NewReader(ini))
	}
	if err == nil {
		_, err = parser.ParseArgs(args)
	}
	return parsed, err
}

func printConfig(t *testing.T, dir string, args []string, env ...string) string {
	t.Helper()
	return run(t, program("courant"), append([]string{"print-config"}, args...), dir, nil, env...)
}

// random is seeded by COURANT_SEED, or prints its seed.
func random(t *testing.T) *rand.Rand {
	seed, err := strconv.ParseInt(os.Getenv("COURANT_SEED"), 10, 64)
	if err != nil {
		seed = time.Now().UnixNano()
	}
	t.Logf("COURANT_SEED=%d", seed)
	return rand.New(rand.NewSource(seed))
}

// Text that files of options could get wrong.
var awkward = []string{
	"plain", "two words", "  spaces around ", "semi;colon", "#number", "a = b", `"quoted"`, `say "hello"`, `back\slash`, `end\`, "tab\there",
	"new\nline", "ünïcode ☃", "'single'", "[section]", "%percent%", "${variable}", "a,b", "-dash", "", `\n`, "colon: value", `"`, `""`, "\u0001",
}

// setting gives an option a value drawn at random: in the struct, and as the flag by which Courant is told.
type setting func(from *rand.Rand, o *options) string

var settings = []setting{
	textual("--broker.host", func(o *options) *string { return &o.Broker.Host }),
	textual("--broker.file-root", func(o *options) *string { return &o.Broker.FileRoot }),
	textual("--broker.server-cert-file", func(o *options) *string { return &o.Broker.ServerCertFile }),
	textual("--etcd.cert-file", func(o *options) *string { return &o.Etcd.CertFile }),
	number("--broker.limit", 1<<17, func(o *options) *uint32 { return &o.Broker.Limit }),
	number("--broker.max-append-rate", 1<<32, func(o *options) *uint32 { return &o.Broker.MaxAppendRate }),
	number("--broker.min-append-rate", 1<<32, func(o *options) *uint32 { return &o.Broker.MinAppendRate }),
	number("--broker.max-grpc-recv-size", 1<<30, func(o *options) *uint32 { return &o.Broker.MaxGRPCRecvSize }),
	duration("--broker.watch-delay", func(o *options) *time.Duration { return &o.Broker.WatchDelay }),
	duration("--etcd.lease", func(o *options) *time.Duration { return &o.Etcd.LeaseTTL }),
	choice("--log.level", []string{"trace", "debug", "info", "warn", "error", "fatal"}, func(o *options) *string { return &o.Log.Level }),
	choice("--log.format", []string{"json", "text", "color"}, func(o *options) *string { return &o.Log.Format }),
	boolean("--broker.auto-suspend", func(o *options) *bool { return &o.Broker.AutoSuspend }),
	boolean("--broker.file-only", func(o *options) *bool { return &o.Broker.FileOnly }),
	boolean("--debug.private", func(o *options) *bool { return &o.Debug.Private }),
	origin, origin, origin,
}

func textual(flag string, field func(*options) *string) setting {
	return choice(flag, awkward, field)
}

func choice(flag string, values []string, field func(*options) *string) setting {
	return func(from *rand.Rand, o *options) string {
		value := values[from.Intn(len(values))]
		*field(o) = value
		return flag + "=" + value
	}
}

func number(flag string, end int64, field func(*options) *uint32) setting {
	return func(from *rand.Rand, o *options) string {
		value := from.Int63n(end)
		*field(o) = uint32(value)
		return fmt.Sprintf("%s=%d", flag, value)
	}
}

func duration(flag string, field func(*options) *time.Duration) setting {
	return func(from *rand.Rand, o *options) string {
		value := time.Second + time.Duration(from.Int63n(1e13))
		*field(o) = value
		return flag + "=" + value.String()
	}
}

func boolean(flag string, field func(*options) *bool) setting {
	return func(_ *rand.Rand, o *options) string {
		*field(o) = true
		return flag
	}
}

func origin(from *rand.Rand, o *options) string {
	value := "http://host-" + strconv.Itoa(from.Intn(1000))
	o.Broker.AllowOrigin = append(o.Broker.AllowOrigin, value)
	return "--broker.allow-origin=" + value
}

// draw gives some options values, and returns the flags for them.
func draw(from *rand.Rand, o *options) []string {
	var args []string
	for _, at := range from.Perm(len(settings))[:from.Intn(len(settings)+1)] {
		args = append(args, settings[at](from, o))
	}
	return args
}

// String is what options are compared by, and shown as.
func (o options) String() string {
	text, err := json.Marshal(o)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func configFromCourant(t *testing.T) {
	from, dir := random(t), t.TempDir()
	for range 40 {
		want := parse(t, "", nil)
		args := draw(from, &want)
		printed := printConfig(t, dir, args)
		if got := parse(t, printed, nil); got.String() != want.String() {
			t.Fatalf("%q: go-flags reads\n%s\nexpected\n%s\nof\n%s", args, got, want, printed)
		}
	}
}

func configFromGo(t *testing.T) {
	from, dir := random(t), t.TempDir()
	read := 0
	for i := range 40 {
		var chosen options
		parser := flags.NewParser(&chosen, flags.None)
		if _, err := parser.ParseArgs(nil); err != nil {
			t.Fatal(err)
		}
		draw(from, &chosen)
		style := []flags.IniOptions{flags.IniDefault, flags.IniIncludeComments | flags.IniIncludeDefaults | flags.IniCommentDefaults, flags.IniIncludeDefaults}[i%3]
		var ini bytes.Buffer
		flags.NewIniParser(parser).Write(&ini, style)
		if err := os.WriteFile(filepath.Join(dir, "gazette.ini"), ini.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		// go-flags does not quote all that it should, so what its file says is what it reads there.
		want, err := tryParse(ini.String(), nil)
		if err != nil {
			continue
		}
		read++
		printed := printConfig(t, dir, nil)
		if got := parse(t, printed, nil); got.String() != want.String() {
			t.Fatalf("Courant took\n%s\nexpected\n%s\nof\n%s\nand printed\n%s", got, want, ini.String(), printed)
		}
	}
	if read < 20 {
		t.Fatalf("go-flags read %d of its own files", read)
	}
}

// Every combination of the places that may name a value, for an option of each kind.
func configPrecedence(t *testing.T) {
	for _, c := range []struct {
		flag, section, key, variable string
		values                       [3]string // Of flag, file and environment.
		get                          func(options) any
	}{
		{"--broker.zone", "Broker", "Zone", "BROKER_ZONE", [3]string{"of-flag", "of-file", "of-environment"}, func(o options) any { return o.Broker.Zone }},
		{"--broker.limit", "Broker", "Limit", "BROKER_LIMIT", [3]string{"1", "2", "3"}, func(o options) any { return o.Broker.Limit }},
		{"--etcd.lease", "Etcd", "LeaseTTL", "ETCD_LEASE_TTL", [3]string{"11s", "12s", "1m13s"}, func(o options) any { return o.Etcd.LeaseTTL }},
		{"--broker.allow-origin", "Broker", "AllowOrigin", "BROKER_ALLOW_ORIGIN", [3]string{"http://flag", "http://file", "http://environment"}, func(o options) any { return o.Broker.AllowOrigin }},
		{"--broker.max-grpc-recv-size", "Broker", "MaxGRPCRecvSize", "BROKER_MAX_GRPC_RECV_SIZE", [3]string{"5000000", "6000000", "7000000"}, func(o options) any { return o.Broker.MaxGRPCRecvSize }},
		{"--log.level", "Logging", "Level", "LOG_LEVEL", [3]string{"debug", "info", "error"}, func(o options) any { return o.Log.Level }},
		{"--broker.auto-suspend", "Broker", "AutoSuspend", "BROKER_AUTO_SUSPEND", [3]string{"true", "true", "true"}, func(o options) any { return o.Broker.AutoSuspend }},
	} {
		for places := range 8 {
			dir := t.TempDir()
			var args, env []string
			ini := ""
			if places&1 != 0 {
				args = []string{c.flag + "=" + c.values[0]}
				if c.values[0] == "true" {
					args = []string{c.flag}
				}
			}
			if places&2 != 0 {
				ini = fmt.Sprintf("[%s]\n%s = %s\nOfALaterVersion = 1\n", c.section, c.key, c.values[1])
				if err := os.WriteFile(filepath.Join(dir, "gazette.ini"), []byte(ini), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if places&4 != 0 {
				env = []string{c.variable + "=" + c.values[2]}
			}
			// go-flags reads the environment of this process.
			want := func() options {
				for _, entry := range env {
					name, value, _ := strings.Cut(entry, "=")
					os.Setenv(name, value)
					defer os.Unsetenv(name)
				}
				return parse(t, ini, args)
			}()
			printed := printConfig(t, dir, args, env...)
			if got := parse(t, printed, nil); fmt.Sprint(c.get(got)) != fmt.Sprint(c.get(want)) {
				t.Errorf("%s of flag %v, file %v, environment %v: Courant takes %v, go-flags %v", c.flag, places&1 != 0, places&2 != 0, places&4 != 0, c.get(got), c.get(want))
			}
		}
	}
}

// Deployments leave variables empty for "not given".
func configEmpty(t *testing.T) {
	dir := t.TempDir()
	for flag, variable := range map[string]string{
		"--broker.id": "BROKER_ID", "--broker.host": "BROKER_HOST", "--broker.port": "BROKER_PORT", "--broker.file-root": "BROKER_FILE_ROOT",
		"--broker.server-cert-file": "BROKER_SERVER_CERT_FILE", "--etcd.cert-file": "ETCD_CERT_FILE", "--debug.port": "DEBUG_PORT",
	} {
		want := parse(t, "", []string{flag + "="})
		for _, printed := range []string{printConfig(t, dir, []string{flag + "="}), printConfig(t, dir, nil, variable+"=")} {
			if got := parse(t, printed, nil); got.String() != want.String() {
				t.Errorf("an empty %s: Courant takes\n%s\ngo-flags\n%s", flag, got, want)
			}
		}
	}
	// And clients work with them.
	b := alone(t)
	run(t, program("courant"), []string{"journals", "list", "--broker.address=" + b.endpoint}, dir, nil,
		"BROKER_FILE_ROOT=", "BROKER_CERT_FILE=", "BROKER_AUTH_KEYS=", "BROKER_AUTH_TOKEN=")
}
