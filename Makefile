# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need first.
#
#   make demo    emberd, a real Phoenix and a playground that sends LLM traces; prints what to open
#   make test    every test, the real PostgreSQL and the real Phoenix included
#   make run     emberd alone, on its embedded default (SQLite, a local log)
#   make check   format, lints, licences: what a change must pass before its tests are worth running
#   make bench   the benches, with the bare server as the floor in the same run
#   make kill    kill -9 cycles under load against the real binary, on each database (CYCLES=200)
#   make fuzz    every fuzz target guided by coverage, SECONDS=60 each (TARGETS="walk json" for some); stops at a crash
#   make phoenix-kills   kills and stops of a real Phoenix under load (KILLS=10)
#   make deb     the Debian package, in $CARGO_TARGET_DIR/debian; make try-deb puts it through its life under a real systemd (as root)
#   make archive KILLS=50 TRACES=430000   a million spans archived through kills, and read by DuckDB and pyarrow
#   make reliability     docs/reliability.md, from the figures that the last `make test` printed

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export EMBERD_CACHE ?= $(HOME)/.cache/emberd
# A target directory outside the checkout is used again by the next clone.
export CARGO_TARGET_DIR ?= $(EMBERD_CACHE)/target
export EMBERD_PHOENIX := $(EMBERD_CACHE)/phoenix

CARGO := cargo
BIN := $(CARGO_TARGET_DIR)/debug/emberd
DEMO_ARGS ?=
CYCLES ?= 20
KILLS ?= 1
TRACES ?= 3000
# What the tests printed last, figures among it.
OUTPUT := $(CARGO_TARGET_DIR)/test-output.txt
BENCH_ARGS ?=
RIG ?= ../shared/rig
SECONDS ?= 60
TARGETS ?=

.PHONY: help setup rust build demo test run check bench kill fuzz phoenix-kills archive reliability deb try-deb

help:
	@sed -n '3,14p' Makefile | cut -c3-

rust:
	@command -v cargo >/dev/null || { echo "Rust is missing: install rustup, then run this again"; exit 1; }

setup: rust
	@.ci/services setup

build: rust
	$(CARGO) build --locked -p emberd-daemon

demo: setup build
	$(BIN) demo --phoenix-venv $(EMBERD_PHOENIX) $(DEMO_ARGS)

run: build
	$(BIN) serve

# pipefail (above) makes the exit code that of the tests.
test: setup
	@mkdir -p $(dir $(OUTPUT)) && .ci/figures begin >$(OUTPUT)
	.ci/with-services $(CARGO) test --locked --workspace --no-fail-fast 2>&1 | tee -a $(OUTPUT)

# A million spans, killed fifty times, and read by DuckDB and pyarrow: a quarter of an hour.
archive: export EMBERD_TEST_ARCHIVE_KILLS = $(KILLS)
archive: export EMBERD_TEST_ARCHIVE_TRACES = $(TRACES)
archive: setup
	@mkdir -p $(dir $(OUTPUT)) && .ci/figures begin >$(OUTPUT).archive
	.ci/with-services $(CARGO) test --locked -p emberd-daemon --test it archive::what_readers -- --nocapture 2>&1 | tee -a $(OUTPUT).archive
	@echo "to keep this: .ci/figures long $(OUTPUT).archive make archive KILLS=$(KILLS) TRACES=$(TRACES)"

reliability:
	.ci/figures render $(OUTPUT)

check: rust
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check; else echo "cargo-deny is not installed: licences not checked"; fi

bench: setup
	$(CARGO) build --release --locked -p emberd-daemon -p emberd-benches
	EMBERD_RIG=$$(.ci/services rig $(RIG)) .ci/with-services $(CARGO_TARGET_DIR)/release/emberd-benches $(BENCH_ARGS)

# Long runs: their figures are kept in docs/reliability-long.json by the command that they print in the end.
kill: export EMBERD_KILL_CYCLES = $(CYCLES)
kill: setup
	@mkdir -p $(dir $(OUTPUT)) && .ci/figures begin >$(OUTPUT).kill
	.ci/with-services $(CARGO) test --locked -p emberd-daemon --test it kill:: -- --nocapture 2>&1 | tee -a $(OUTPUT).kill
	@echo "to keep this: .ci/figures long $(OUTPUT).kill make kill CYCLES=$(CYCLES)"

fuzz: rust
	fuzz/run $(SECONDS) $(TARGETS)

phoenix-kills: export EMBERD_TEST_PHOENIX_KILLS = $(KILLS)
phoenix-kills: setup
	@mkdir -p $(dir $(OUTPUT)) && .ci/figures begin >$(OUTPUT).phoenix
	.ci/with-services $(CARGO) test --locked -p emberd-daemon --test it truth:: -- --nocapture 2>&1 | tee -a $(OUTPUT).phoenix
	@echo "to keep this: .ci/figures long $(OUTPUT).phoenix make phoenix-kills KILLS=$(KILLS)"

CARGO_DEB := $(EMBERD_CACHE)/cargo-deb
CARGO_DEB_VERSION := 3.8.0
# To try the package itself with a binary that is there: DEB_ARGS="--no-build --profile dev".
DEB_ARGS ?=

deb: rust
	@[ -x $(CARGO_DEB)/bin/cargo-deb ] || $(CARGO) install cargo-deb@$(CARGO_DEB_VERSION) --locked --root $(CARGO_DEB)
	PATH="$(CARGO_DEB)/bin:$$PATH" $(CARGO) deb --locked -p emberd-daemon $(DEB_ARGS)

try-deb: deb
	packaging/try $$(ls -t $(CARGO_TARGET_DIR)/debian/emberd_*.deb | head -1)
