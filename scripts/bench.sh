#!/usr/bin/env bash
# Measures Courant on this machine: ratios within one run, then the micro-benchmarks of the pure cores.
# docs/benchmarks.md records such runs. Use: scripts/bench.sh [OPTIONS OF THE bench PROGRAM], e.g. --rounds 3 --duration 2s
set -euo pipefail
cd "$(dirname "$0")/.."
idle() { # Percent of both cores that was idle over one second.
  local a b
  read -ra a < /proc/stat; sleep 1; read -ra b < /proc/stat
  local total=0 i
  for i in 1 2 3 4 5 6 7 8; do total=$((total + b[i] - a[i])); done
  echo $(((b[4] - a[4]) * 100 / (total > 0 ? total : 1)))
}
echo "machine: $(nproc) cores, $(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo), $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r)"
cargo build --release --locked --bin courant --bin summer --bin chunker --bin noop-broker --bin bench
echo "idle before: $(idle) %"
cargo run --quiet --release --locked --bin bench -- "$@"
echo "idle after: $(idle) %"
cargo bench --locked -p message -p fragment -p recoverylog -p allocator -p broker
