package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	pb "interop/gen/protocol"
)

func TestTLS(t *testing.T) {
	t.Parallel()
	verify(t, "TLS of certificates that Go made: gRPC, HTTP/1.1, HTTP/2, etcd", with([]string{"crypto/tls"}, grpcGo, etcdGo), tlsServer)
	verify(t, "TLS with client certificates: demanded, verified, replaced on disk", with([]string{"crypto/tls"}, grpcGo), tlsClients)
}

// An authority that Go made, and what it certifies.
type authority struct {
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir(), pool: x509.NewCertPool()}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "interop"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	a.write(t, "ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// write puts a file into its place in one step.
func (a *authority) write(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(a.path(name+".new"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(a.path(name+".new"), a.path(name)); err != nil {
		t.Fatal(err)
	}
}

// certify makes NAME.pem and NAME.key, of the loopback's address, and returns them for Go.
func (a *authority) certify(t *testing.T, name string, serial int64) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, name+".key", "PRIVATE KEY", secret)
	a.write(t, name+".pem", "CERTIFICATE", der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serveTLS starts a broker with the certificate `server`, and returns its address.
func (a *authority) serveTLS(t *testing.T, further ...string) string {
	t.Helper()
	dir := t.TempDir()
	process, err := start(program("courant"), append([]string{
		"serve", "--broker.port=0", "--broker.data-dir=data", "--broker.server-cert-file=" + a.path("server.pem"), "--broker.server-cert-key-file=" + a.path("server.key"),
		"--broker.peer-ca-file=" + a.path("ca.pem"),
	}, further...), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.stop)
	endpoint, err := process.waitLine(`serving on https://([^, ]+)`)
	if err != nil {
		t.Fatal(err)
	}
	return endpoint
}

// lists asks a broker for journals on a connection of its own.
func lists(t *testing.T, address string, config *tls.Config) error {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := pb.NewJournalClient(conn).List(within(t), &pb.ListRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

func tlsServer(t *testing.T) {
	a := newAuthority(t)
	a.certify(t, "server", 2)
	address := a.serveTLS(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		if err := lists(t, address, &tls.Config{RootCAs: a.pool, MinVersion: version, MaxVersion: version}); err != nil {
			t.Errorf("gRPC over %s: %v", tls.VersionName(version), err)
		}
	}
	// Neither an authority that did not certify it, nor a name that it is not of.
	if err := lists(t, address, &tls.Config{RootCAs: newAuthority(t).pool}); err == nil {
		t.Error("a server of another authority was trusted")
	}
	if err := lists(t, address, &tls.Config{RootCAs: a.pool, ServerName: "elsewhere"}); err == nil {
		t.Error("a server of another name was trusted")
	}
	// HTTP/1.1 is preferred by servers of the protocol; clients which know nothing else get HTTP/2.
	for want, protocols := range map[string]func(*http.Protocols){
		"http/1.1": func(p *http.Protocols) { p.SetHTTP1(true); p.SetHTTP2(true) },
		"h2":       func(p *http.Protocols) { p.SetHTTP2(true) },
	} {
		offered := new(http.Protocols)
		protocols(offered)
		client := &http.Client{Transport: &http.Transport{Protocols: offered, TLSClientConfig: &tls.Config{RootCAs: a.pool}}}
		response, _ := do(t, client, request(t, "GET", "https://"+address+"/debug/ready", nil))
		if response.StatusCode != http.StatusOK || response.TLS.NegotiatedProtocol != want {
			t.Errorf("%s: %v over %q", want, response, response.TLS.NegotiatedProtocol)
		}
	}
	if response, err := http.Get("http://" + address + "/debug/ready"); err == nil {
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			t.Error("the port answers without TLS")
		}
	}
	etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + address}, DialTimeout: limit, TLS: &tls.Config{RootCAs: a.pool}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer etcd.Close()
	put(t, etcd, "/interop-tls", "x")
	if kv := onlyKey(t, etcd, "/interop-tls"); string(kv.Value) != "x" {
		t.Errorf("etcd over TLS: %v", kv)
	}
}

func tlsClients(t *testing.T) {
	a := newAuthority(t)
	a.certify(t, "server", 2)
	mine := a.certify(t, "client", 3)
	address := a.serveTLS(t, "--broker.server-ca-file="+a.path("ca.pem"), "--broker.peer-cert-file="+a.path("client.pem"), "--broker.peer-cert-key-file="+a.path("client.key"))
	config := func(certificates ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: a.pool, Certificates: certificates}
	}
	if err := lists(t, address, config(mine)); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	if err := lists(t, address, config()); err == nil {
		t.Error("a client without certificate was let in")
	}
	if err := lists(t, address, config(newAuthority(t).certify(t, "client", 3))); err == nil {
		t.Error("a client of another authority was let in")
	}
	// A certificate that is replaced on disk is shown to who connects from then on.
	a.certify(t, "server", 77)
	eventually(t, "the new certificate is shown", func() error {
		conn, err := tls.Dial("tcp", address, config(mine))
		if err != nil {
			return err
		}
		defer conn.Close()
		if serial := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); serial != 77 {
			return fmt.Errorf("serial number %d", serial)
		}
		return nil
	})
	if err := lists(t, address, config(mine)); err != nil {
		t.Errorf("after the replacement: %v", err)
	}
}
