// Package interop asks Courant's programs the way Go programs of the Gazette protocol do: with grpc-go, etcd's Go client and
// the Go libraries of codecs, tokens, INI files, UUIDs and metrics which such programs stand on.
//
// Each row is one test. The tests start the programs that they ask, on free ports and in directories of their own, and end
// them by their process ids. Types and stubs are generated from the repository's .proto files: `make interop` does it, and
// prints the table of rows. docs/interop.md has the table, and says what it does not cover.
package interop
