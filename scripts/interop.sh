#!/usr/bin/env bash
# Asks Courant's programs with the Go libraries that programs of the Gazette protocol stand on (tests/interop), and prints
# what was asked, with which versions. Upstream is installed from its Go module, by name, and asked too where it can be had.
# Where the Go modules cannot be fetched at all the script says so and ends with status 0: nothing of Courant was asked.
# With INTEROP_BIN the programs of that directory are asked; otherwise they are built.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${COURANT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/courant}/interop
mkdir -p "$cache/upstream"
for program in go protoc etcd; do
  command -v "$program" >/dev/null || { echo "interop: $program is missing; run make setup, and install Go" >&2; exit 1; }
done

status=0
(cd tests/interop && timeout 300 go mod download) 2>"$cache/download.log" || status=$?
if [ "$status" != 0 ]; then
  tail -3 "$cache/download.log" >&2
  [ "$status" != 124 ] || echo "i/o timeout: no answer within 5 minutes" >>"$cache/download.log"
  # What a network that is not there, or lets nothing through, looks like; anything else is a fault.
  if grep -qE 'no such host|dial tcp|403 Forbidden|i/o timeout|connection (refused|reset)|network is unreachable|handshake timeout' "$cache/download.log"; then
    echo "interop: skipped, the Go modules cannot be fetched: $(tail -1 "$cache/download.log")"
    exit 0
  fi
  exit 1
fi
scripts/interop-generate.sh "$cache/bin"
(cd tests/interop && go vet ./... && go test -c -o "$cache/interop.test" .)

# Upstream's programs, once per machine. Its module is no dependency of ours: without it everything else still runs.
if [ ! -x "$cache/upstream/gazette" ] || [ ! -x "$cache/upstream/gazctl" ]; then
  (
    cd "$cache/upstream"
    [ -f go.mod ] || go mod init upstream
    timeout 60 go get go.gazette.dev/core@latest &&
      GOBIN=$PWD timeout 600 go install go.gazette.dev/core/cmd/gazette go.gazette.dev/core/cmd/gazctl
  ) >"$cache/upstream/install.log" 2>&1 || true
fi
if [ -x "$cache/upstream/gazette" ] && [ -x "$cache/upstream/gazctl" ]; then
  export INTEROP_UPSTREAM=$cache/upstream
  INTEROP_UPSTREAM_VERSION=$(cd "$cache/upstream" && go list -m -f '{{.Version}}' go.gazette.dev/core)
else
  words=$(grep -oE '[0-9]{3} [A-Z][a-z]+|server response: .*' "$cache/upstream/install.log" | paste -sd ';' | sed 's/;/; /g')
  INTEROP_UPSTREAM_VERSION="unavailable (${words:-$(tail -1 "$cache/upstream/install.log")})"
fi
export INTEROP_UPSTREAM_VERSION

if [ -z "${INTEROP_BIN:-}" ]; then
  # As the tests build them, so that nothing is compiled twice.
  cargo build --locked --workspace --bins
  target=${CARGO_TARGET_DIR:-$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')}
  INTEROP_BIN=$target/debug
fi
INTEROP_BIN=$(cd "$INTEROP_BIN" && pwd)
export INTEROP_BIN
cd tests/interop
exec "$cache/interop.test" -test.timeout=170s
