package interop

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Longest wait for anything that a test waits for.
const limit = 60 * time.Second

// A program which runs until the tests end it.
type process struct {
	name string
	cmd  *exec.Cmd

	mu    sync.Mutex
	said  []string
	more  chan struct{} // Closed at the next line, or at the end.
	ended bool
}

var (
	running   []*process
	runningMu sync.Mutex
	// Programs are started by one thread which never ends: they are killed if this process is.
	starter = make(chan func())
)

func init() {
	go func() {
		runtime.LockOSThread()
		for start := range starter {
			start()
		}
	}()
}

// program is the path of one of Courant's programs.
func program(name string) string { return filepath.Join(os.Getenv("INTEROP_BIN"), name) }

// start runs a program whose environment is this one's, without what would configure it, and `env`.
func start(path string, args []string, dir string, env ...string) (*process, error) {
	p := &process{name: filepath.Base(path), more: make(chan struct{})}
	p.cmd = exec.Command(path, args...)
	p.cmd.Dir = dir
	p.cmd.Env = append(cleanEnv(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error)
	starter <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	runningMu.Lock()
	running = append(running, p)
	runningMu.Unlock()
	go func() {
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.push(lines.Text(), false)
		}
		p.push("", true)
	}()
	return p, nil
}

func (p *process) push(line string, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ended {
		p.ended = true
	} else {
		p.said = append(p.said, line)
	}
	close(p.more)
	p.more = make(chan struct{})
}

// waitLine waits until a line of standard error matches, and returns its first group.
func (p *process) waitLine(pattern string) (string, error) {
	expression := regexp.MustCompile(pattern)
	deadline := time.After(limit)
	for next := 0; ; {
		p.mu.Lock()
		lines, more, ended := p.said[next:], p.more, p.ended
		next = len(p.said)
		p.mu.Unlock()
		for _, line := range lines {
			if found := expression.FindStringSubmatch(line); found != nil {
				return found[len(found)-1], nil
			}
		}
		if ended {
			return "", fmt.Errorf("%s ended before it said %q:\n%s", p.name, pattern, p.tail())
		}
		select {
		case <-more:
		case <-deadline:
			return "", fmt.Errorf("%s did not say %q:\n%s", p.name, pattern, p.tail())
		}
	}
}

// tail is the end of what the program said.
func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.said[max(0, len(p.said)-30):], "\n")
}

// stop asks the program to end, kills it if it does not, and waits for its end.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
	kill.Stop()
}

// stopAll ends every program, those which were started last first.
func stopAll() {
	for i := len(running) - 1; i >= 0; i-- {
		running[i].stop()
	}
	for _, dir := range directories {
		_ = os.RemoveAll(dir)
	}
}

// run runs a program to its end and returns its standard output.
func run(t *testing.T, path string, args []string, dir string, input []byte, env ...string) string {
	t.Helper()
	out, err := tryRun(path, args, dir, input, env...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryRun(path string, args []string, dir string, input []byte, env ...string) (string, error) {
	cmd := exec.Command(path, args...)
	var out, said bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, append(cleanEnv(), env...), bytes.NewReader(input), &out, &said
	kill := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(path), strings.Join(args, " "), err, said.String())
	}
	return out.String(), nil
}

// cleanEnv is the environment without variables that options are taken from, and with a home of nobody.
func cleanEnv() []string {
	var kept []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if regexp.MustCompile(`^(BROKER|CONSUMER|ETCD|LOG|DEBUG|ZONE|OTEL)(_|$)`).MatchString(name) || name == "HOME" {
			continue
		}
		kept = append(kept, entry)
	}
	return append(kept, "HOME=/nonexistent")
}

var directories []string

// directory makes a directory that is removed when the tests end. Programs which several tests ask have such ones.
func directory() (string, error) {
	dir, err := os.MkdirTemp("", "courant-interop-")
	if err == nil {
		directories = append(directories, dir)
	}
	return dir, err
}

// freePort is a port of loopback that nobody listens on.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// eventually asks until the answer is nil, or fails with the last one.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
