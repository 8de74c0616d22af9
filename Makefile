# What a newcomer needs: `make demo` and `make test`. `make help` lists the rest.

STREAMS ?= 1200
CHUNKS ?= 100
WORKERS ?= 4
export COURANT_CACHE ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/courant

# Rounds of `make chaos`, its seed (random if it is empty), further options, and how its programs are built.
ROUNDS ?= 10
SEED ?=
CHAOS_ARGS ?=
CHAOS_PROFILE ?= --release

# MiB that `make tiering` writes, further options, and how its programs are built.
MIB ?= 2048
TIERING_ARGS ?=
TIERING_PROFILE ?= --release

# What `make build` builds. Programs are named, not packages: features of dependencies are then those of the whole workspace, and
# nothing is compiled twice.
PROGRAMS := --bin courant --bin summer --bin chunker --bin visits --bin word-count --bin wordcountctl --bin bike-share

.PHONY: help setup build demo cluster-demo chaos tiering test lint fmt bench interop

help: ## Show this help
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what the build needs and build RocksDB once per machine
	@scripts/setup.sh build

build: setup ## Build courant and the examples in release mode
	cargo build --release --locked $(PROGRAMS)

demo: build ## Run broker, summers and chunker as processes, kill two, verify every sum (STREAMS=, CHUNKS=, WORKERS=)
	cargo build --release --locked --bin demo
	@cargo run --quiet --release --locked --bin demo -- --streams $(STREAMS) --chunks $(CHUNKS) --workers $(WORKERS)

cluster-demo: ## Run etcd, four brokers and three summers as processes, kill and restart them all, verify every sum
	@scripts/setup.sh test
	cargo build --release --locked $(PROGRAMS) --bin cluster-demo
	@cargo run --quiet --release --locked --bin cluster-demo

chaos: ## Hurt a cluster at random and verify that it keeps its promises (ROUNDS=, SEED=, CHAOS_ARGS=)
	@scripts/setup.sh test
	cargo build $(CHAOS_PROFILE) --locked --workspace --bins
	@cargo run --quiet $(CHAOS_PROFILE) --locked --bin chaos -- --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

tiering: ## Write journals of every codec, destroy all brokers and disks, and compare what the stores give (MIB=)
	@scripts/setup.sh test
	cargo build $(TIERING_PROFILE) --locked --workspace --bins
	@cargo run --quiet $(TIERING_PROFILE) --locked --bin tiering -- --mib $(MIB) $(TIERING_ARGS)

test: ## Install what the tests need and run all of them
	@scripts/setup.sh test
	cargo build --locked --workspace --bins
	cargo test --locked --workspace --no-fail-fast

lint: ## Check formatting, and clippy with warnings denied
	@scripts/setup.sh build
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

fmt: ## Format the code
	cargo fmt --all

bench: setup ## Measure throughput and latency, and run the micro-benchmarks
	scripts/bench.sh

interop: ## Ask Courant with the Go libraries of the protocol's programs, and with upstream where it can be had (needs go)
	@scripts/setup.sh test
	scripts/interop.sh
