#!/usr/bin/env bash
# Prints the path of a Python which has the package `snappy`, the tool that tests compare with. Installs it once per machine,
# in a cache outside the clone.
set -euo pipefail
version=0.7.3
dir=${COURANT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/courant}/python-snappy-$version
mkdir -p "$(dirname "$dir")"
exec 9>"$dir.lock" # Two at once would write the same files: the second waits and then finds it done.
flock 9
if [ ! -f "$dir/complete" ]; then
  echo "python-snappy.sh: installing python-snappy $version (once per machine)" >&2
  rm -rf "$dir"
  python3 -m venv "$dir"
  "$dir/bin/pip" install -q --disable-pip-version-check "python-snappy==$version" cramjam==2.14.0 >&2
  touch "$dir/complete"
fi
echo "$dir/bin/python"
