#!/usr/bin/env bash
# First contact with upstream: its gazctl against a Courant broker, Courant's command line against an upstream broker on
# a real etcd, and the bytes compared. Upstream is installed from its Go module, by name; where that module cannot be had,
# the script says so and ends with status 0, since nothing of Courant was found wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${COURANT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/courant}
bin=$cache/upstream/bin
target=${CARGO_TARGET_DIR:-$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')}

command -v go >/dev/null || { echo "interop-smoke: skipped, go is not installed"; exit 0; }
command -v etcd >/dev/null || { echo "interop-smoke: etcd is missing; run make setup" >&2; exit 1; }
if [ ! -x "$bin/gazctl" ] || [ ! -x "$bin/gazette" ]; then
  mkdir -p "$bin" "$cache/upstream/module"
  if ! (cd "$cache/upstream/module" && { [ -f go.mod ] || go mod init smoke; } &&
    go get go.gazette.dev/core@latest && GOBIN=$bin go install go.gazette.dev/core/cmd/gazette go.gazette.dev/core/cmd/gazctl) \
    >"$cache/upstream/install.log" 2>&1; then
    echo "interop-smoke: skipped, the Go module go.gazette.dev/core cannot be installed here:"
    tail -2 "$cache/upstream/install.log" | sed 's/^/  /'
    exit 0
  fi
fi
cargo build --locked -p cli
courant=$target/debug/courant

work=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wait_for() { # WHAT COMMAND...
  local what=$1 tries=0
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { echo "interop-smoke: $what did not come up" >&2; exit 1; }
    sleep 0.1
  done
}
journals() { # STORE
  cat <<YAML
name: smoke/
replication: 1
fragment: {length: 1048576, compression_codec: SNAPPY, refresh_interval: 5s, stores: ["$1"]}
labels: [{name: content-type, value: application/x-ndjson}]
children: [{name: smoke/one}, {name: smoke/two}]
YAML
}
head -c 300000 /dev/urandom | base64 > "$work/content"

# Upstream's gazctl against Courant.
port=$(free_port)
"$courant" serve --broker.port="$port" --broker.data-dir="$work/courant" 2>"$work/courant.log" &
pids+=($!)
wait_for "courant serve" curl -sf "http://127.0.0.1:$port/debug/ready"
export BROKER_ADDRESS=http://127.0.0.1:$port
journals file:/// > "$work/journals.yaml"
"$bin/gazctl" journals apply --specs "$work/journals.yaml"
"$bin/gazctl" journals list | grep -q smoke/one
"$bin/gazctl" journals append -l name=smoke/one -i "$work/content"
"$bin/gazctl" journals read -l name=smoke/one > "$work/read-1"
cmp "$work/content" "$work/read-1"
"$bin/gazctl" journals fragments -l name=smoke/one | grep -q smoke/one
echo "interop-smoke: gazctl apply, list, append, read, fragments against courant: ok"

# Courant's command line against upstream's broker.
client=$(free_port) peer=$(free_port) port=$(free_port)
etcd --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
  --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
  --initial-cluster "default=http://127.0.0.1:$peer" >"$work/etcd.log" 2>&1 &
pids+=($!)
wait_for etcd curl -sf "http://127.0.0.1:$client/health"
mkdir "$work/fragments"
"$bin/gazette" serve --broker.port="$port" --broker.host=127.0.0.1 --broker.file-root="$work/fragments" \
  --etcd.address="http://127.0.0.1:$client" >"$work/gazette.log" 2>&1 &
pids+=($!)
wait_for "gazette serve" curl -sf "http://127.0.0.1:$port/debug/ready"
export BROKER_ADDRESS=http://127.0.0.1:$port
"$courant" journals apply --specs "$work/journals.yaml"
"$courant" journals append -l name=smoke/two -i "$work/content"
"$courant" journals read -l name=smoke/two > "$work/read-2"
cmp "$work/content" "$work/read-2"
echo "interop-smoke: courant apply, append, read against upstream: ok"
