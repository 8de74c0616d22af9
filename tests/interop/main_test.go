package interop

import (
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// One line of the table.
type row struct {
	test   string
	name   string
	with   []string
	passed bool
}

var (
	rows   []row
	rowsMu sync.Mutex
)

// verify runs one row of the table: what is verified, and the Go modules by which it is.
func verify(t *testing.T, what string, modules []string, body func(t *testing.T)) {
	t.Helper()
	test := t.Name()
	t.Run(what, func(t *testing.T) {
		t.Cleanup(func() {
			rowsMu.Lock()
			defer rowsMu.Unlock()
			rows = append(rows, row{test, what, modules, !t.Failed()})
		})
		body(t)
	})
}

// Libraries, by the paths of their modules. One without a dot is of Go's standard library.
var (
	grpcGo    = []string{"google.golang.org/grpc"}
	protobuf  = []string{"google.golang.org/protobuf"}
	gogo      = []string{"github.com/gogo/protobuf"}
	etcdGo    = []string{"go.etcd.io/etcd/client/v3"}
	netHTTP   = []string{"net/http"}
	jwtGo     = []string{"github.com/golang-jwt/jwt/v5"}
	goFlags   = []string{"github.com/jessevdk/go-flags"}
	uuidGo    = []string{"github.com/google/uuid"}
	snappyGo  = []string{"github.com/golang/snappy"}
	klauspost = []string{"github.com/klauspost/compress"}
	dataDog   = []string{"github.com/DataDog/zstd"}
	gzipGo    = []string{"compress/gzip"}
	gateway   = []string{"github.com/grpc-ecosystem/grpc-gateway"}
	expfmtGo  = []string{"github.com/prometheus/common"}
	yamlGo    = []string{"gopkg.in/yaml.v2"}
)

func with(modules ...[]string) []string {
	var all []string
	for _, some := range modules {
		all = append(all, some...)
	}
	return all
}

func TestMain(m *testing.M) {
	if os.Getenv("INTEROP_BIN") == "" {
		fmt.Fprintln(os.Stderr, "INTEROP_BIN names no directory of Courant's programs: run `make interop`")
		os.Exit(1)
	}
	status := m.Run()
	stopAll()
	printTable()
	os.Exit(status)
}

func printTable() {
	// Tests run beside one another; each one's rows are in its order.
	sort.SliceStable(rows, func(i, j int) bool { return rows[i].test < rows[j].test })
	versions := versions()
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "\nresult\twhat\twith")
	passed, failed := 0, 0
	for _, row := range rows {
		result := "ok"
		if row.passed {
			passed++
		} else {
			failed++
			result = "FAILED"
		}
		var used []string
		for _, module := range row.with {
			used = append(used, strings.TrimSpace(module+" "+versions[module]))
		}
		fmt.Fprintf(out, "%s\t%s\t%s\n", result, row.name, strings.Join(used, ", "))
	}
	out.Flush()
	fmt.Printf("\ninterop: passed=%d failed=%d upstream=%s\n", passed, failed, upstreamVersion())
}

// Versions of the modules that this program is built of; Go's own for packages of its library.
func versions() map[string]string {
	found := map[string]string{upstreamGo[0]: upstreamVersion()}
	listed, err := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Version}}", "all").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop: go list:", err)
	}
	for _, line := range strings.Split(string(listed), "\n") {
		if path, version, ok := strings.Cut(line, " "); ok {
			found[path] = version
		}
	}
	// A module of the table which is not there would be printed without its version: name it.
	var missing []string
	for _, row := range rows {
		for _, module := range row.with {
			if strings.Contains(strings.Split(module, "/")[0], ".") && found[module] == "" {
				missing = append(missing, module)
			}
		}
	}
	sort.Strings(missing)
	if len(missing) > 0 {
		fmt.Fprintln(os.Stderr, "interop: no version of", missing)
	}
	return found
}
