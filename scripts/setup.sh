#!/usr/bin/env bash
# Installs what the build (or the tests) of Courant need from Debian's packages, builds RocksDB once per machine, and
# tells cargo where it is, in .cargo/config.toml (which git ignores). For tests it also installs servers of object stores.
#
# Use: scripts/setup.sh build|test
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-build}

command -v cargo >/dev/null || { echo "setup: cargo is missing: install Rust from https://rustup.rs first" >&2; exit 1; }

declare -A why=()
need() { # PACKAGE REASON
  why[$1]=$2
}
have_libclang() { ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1; }
have_postgres() { command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }
have_clang_headers() { ls -d /usr/lib/llvm-*/lib/clang/*/include /usr/lib/clang/*/include >/dev/null 2>&1; }

command -v g++ >/dev/null || need g++ "compiles RocksDB"
# A protoc that was not packaged by Debian brings the well-known types beside itself.
have_well_known_types() {
  local root
  for root in "$(dirname "$(readlink -f "$(command -v protoc)")")/.." /usr /usr/local; do
    [ -f "$root/include/google/protobuf/descriptor.proto" ] && return 0
  done
  return 1
}
if ! command -v protoc >/dev/null; then
  need protobuf-compiler "compiles the etcd client's messages"
  need libprotobuf-dev "the well-known types which those messages import"
elif ! have_well_known_types; then
  need libprotobuf-dev "the well-known types which the etcd client's messages import"
fi
if ! have_libclang || ! have_clang_headers; then
  need libclang "reads RocksDB's headers" # The real names carry a version, resolved below.
fi
if [ "$what" = test ]; then
  command -v etcd >/dev/null || need etcd-server "the real etcd of test clusters"
  command -v etcdctl >/dev/null || need etcd-client "lists and backs up what etcd holds, as the operations guide does"
  command -v ip >/dev/null || need iproute2 "gives each process of a test cluster a network namespace"
  command -v iptables >/dev/null || need iptables "cuts processes of a test cluster off from each other"
  command -v strace >/dev/null || need strace "slows a broker's disk down"
  have_postgres || need postgresql "the PostgreSQL server of tests of external stores"
  command -v openssl >/dev/null || need openssl "makes certificates for tests of encrypted connections"
  python3 -c 'import ensurepip, venv' 2>/dev/null || need python3-venv "installs the S3 server of tests"
  command -v node >/dev/null || need nodejs "runs the Azure server of tests"
  command -v npm >/dev/null || need npm "installs the Azure server of tests"
  ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || need libfaketime "puts a process's clock ahead"
  command -v zstd >/dev/null || need zstd "reads and writes fragments, as they must be for every tool"
fi

if [ ${#why[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || {
    echo "setup: this machine has no apt-get; install by other means: ${!why[*]}" >&2
    exit 1
  }
  run=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "setup: not root and no sudo; install as root: ${!why[*]}" >&2; exit 1; }
    run=(sudo)
  fi
  echo "setup: these Debian packages are missing and will be installed:" >&2
  for package in "${!why[@]}"; do echo "  $package — ${why[$package]}" >&2; done
  if [ ${#run[@]} -gt 0 ]; then
    if [ -t 0 ]; then
      read -r -p "setup: install them with sudo? [y/N] " answer
      [[ $answer == [yY]* ]] || { echo "setup: stopped; nothing was installed" >&2; exit 1; }
    else
      echo "setup: not root and no terminal to ask on; install them first" >&2
      exit 1
    fi
  fi
  export DEBIAN_FRONTEND=noninteractive
  "${run[@]}" apt-get update -qq >&2
  packages=()
  for package in "${!why[@]}"; do
    if [ "$package" = libclang ]; then
      # The version which this release of Debian takes as its default.
      version=$(apt-cache depends libclang-dev | grep -oE 'libclang-[0-9]+-dev' | head -1 | tr -dc 0-9)
      packages+=("libclang1-$version" "libclang-common-$version-dev")
    else
      packages+=("$package")
    fi
  done
  "${run[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
fi

lib=$(scripts/rocksdb.sh)
config=.cargo/config.toml
mark="# Written by scripts/setup.sh."
if [ ! -f "$config" ] || head -1 "$config" | grep -qF "$mark"; then
  mkdir -p .cargo
  # SQLite is built to commit without a rollback journal, where its file system says that batches of writes are atomic.
  printf '%s\n[env]\nROCKSDB_LIB_DIR = "%s"\nROCKSDB_STATIC = "1"\nLIBSQLITE3_FLAGS = "-DSQLITE_ENABLE_BATCH_ATOMIC_WRITE"\n' \
    "$mark" "$lib" > "$config.new"
  # Written only when it changes: cargo rebuilds what depends on it.
  if cmp -s "$config.new" "$config"; then rm "$config.new"; else mv "$config.new" "$config"; fi
fi
if [ "$what" = test ]; then
  scripts/python-snappy.sh >/dev/null
  scripts/store-servers.sh
fi
