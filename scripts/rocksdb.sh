#!/usr/bin/env bash
# Builds the RocksDB that the crate librocksdb-sys bundles, once per machine, as a static library in a cache outside the
# clone, and prints that directory. A few large translation units cost about a quarter of the bundled build, whose time
# goes into parsing headers. Cargo then links it: ROCKSDB_LIB_DIR=<printed> ROCKSDB_STATIC=1 (see the Makefile).
#
# Use: scripts/rocksdb.sh [CACHE_DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${1:-${COURANT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/courant}}
version=$(awk '/^name = "librocksdb-sys"/ { getline; gsub(/"/, "", $3); print $3 }' Cargo.lock)
[ -n "$version" ] || { echo "rocksdb.sh: Cargo.lock does not name librocksdb-sys" >&2; exit 1; }
compiler=$(${CXX:-g++} -dumpfullversion -dumpversion)
out=$cache/rocksdb/$version-gcc$compiler-v1
mkdir -p "$cache/rocksdb"

exec 9>"$out.lock" # Two builds at once would write the same objects: the second waits and then finds it done.
flock 9
if [ ! -f "$out/librocksdb.a" ]; then
  cargo fetch --locked >&2
  registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
  find_one() { ls -d "$registry"/*/$1 2>/dev/null | sort | tail -1; }
  src=$(find_one "librocksdb-sys-$version")
  zstd=$(find_one 'zstd-sys-2*')/zstd/lib
  lz4=$(find_one 'lz4-sys-1*')/liblz4/lib
  for dir in "$src" "$zstd" "$lz4"; do
    [ -d "$dir" ] || { echo "rocksdb.sh: sources not found: $dir" >&2; exit 1; }
  done
  jobs=${COURANT_JOBS:-$(nproc)}
  echo "rocksdb.sh: building RocksDB $version into $out (once per machine, about 4 minutes on 2 cores)" >&2
  rm -rf "$out.partial" && mkdir -p "$out.partial"
  units=12
  grep -v build_version "$src/rocksdb_lib_sources.txt" | awk 'NF' > "$out.partial/sources"
  per=$(( ($(wc -l < "$out.partial/sources") + units - 1) / units ))
  split -l "$per" -d -a 2 "$out.partial/sources" "$out.partial/unit"
  for unit in "$out.partial"/unit??; do sed 's|.*|#include "rocksdb/&"|' "$unit" > "$unit.cc"; done
  cp "$src/build_version.cc" "$out.partial/"
  flags="-O2 -ffunction-sections -fdata-sections -fPIC -m64 -std=c++20 -include cstdint -w
    -Irocksdb/include/ -Irocksdb/ -I. -I$zstd -I$lz4 -DLZ4=1 -DZSTD=1 -DNDEBUG=1 -DHAVE_ALIGNED_NEW
    -DHAVE_UINT128_EXTENSION -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX
    -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT
    -DROCKSDB_RANGESYNC_PRESENT"
  # shellcheck disable=SC2086
  (cd "$src" && printf '%s\n' "$out.partial"/*.cc | xargs -P "$jobs" -I{} ${CXX:-g++} $flags -c {} -o {}.o)
  ar crs "$out.partial/librocksdb.a" "$out.partial"/*.o
  rm -f "$out.partial"/*.o "$out.partial"/*.cc "$out.partial"/unit* "$out.partial/sources"
  rm -rf "$out" && mv "$out.partial" "$out" # The finished directory appears whole or not at all.
fi
printf '%s\n' "$out"
