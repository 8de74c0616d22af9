#!/usr/bin/env bash
# Installs the servers of object stores which tests start, once per machine, in a cache outside the clone: moto (S3) from
# PyPI and azurite (Azure) from npm. Versions are those which crates/store-servers names.
#
# Use: scripts/store-servers.sh [CACHE_DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${1:-${COURANT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/courant}}/store-servers
moto=$(grep -oE 'moto-[0-9.]+[0-9]' crates/store-servers/src/s3.rs | head -1)
azurite=$(grep -oE 'azurite-[0-9.]+[0-9]' crates/store-servers/src/azure.rs | head -1)
mkdir -p "$cache"

exec 9>"$cache/lock" # Two at once would write the same files: the second waits and then finds it done.
flock 9
begin() { # DIRECTORY
  echo "store-servers.sh: installing $(basename "$1") (once per machine)" >&2
  rm -rf "$1"
}
dir=$cache/$moto
if [ ! -f "$dir/complete" ]; then
  begin "$dir"
  python3 -m venv "$dir"
  "$dir/bin/pip" install -q --disable-pip-version-check "moto[s3]==${moto#moto-}" flask==3.1.3 flask-cors==6.0.5 >&2
  touch "$dir/complete"
fi
dir=$cache/$azurite
if [ ! -f "$dir/complete" ]; then
  begin "$dir"
  mkdir -p "$dir"
  npm install --prefix "$dir" --silent --no-fund --no-audit --no-save "azurite@${azurite#azurite-}" >&2
  touch "$dir/complete"
fi
