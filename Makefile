# A newcomer needs two targets: `make demo` and `make test`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
SERVICES := eval "$$(tests/services env)";

.PHONY: help demo test test-long check bench faults services toolchain brokers reference release-check

help: ## Lists the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

toolchain:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs (any stable from 1.89 on)"; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing (the bundled SQLite needs one): apt install build-essential, or xcode-select --install"; exit 1; }

demo: ## Plays a real day of events in three languages (YEAR=1: a year) on the embedded file, or on BROKER=amqp://…
	@BROKER='$(BROKER)' YEAR='$(YEAR)' examples/airport/play

services: ## Starts every server there is a test for, and says what it did
	tests/services up

brokers:
	tests/services up

test: toolchain brokers ## Starts servers, runs every test in its short form
	$(SERVICES) cargo test --workspace --all-features
	tests/node addon
	$(SERVICES) examples/airport/play test
	$(SERVICES) cargo run --quiet -p tidings-faults -- --short
	$(SERVICES) TIDINGS_ALARM=1 cargo test -p tidings --all-features --test amqp_alarm
	$(SERVICES) tests/interop/run
	$(SERVICES) tests/node
	$(SERVICES) tests/python
	$(SERVICES) tests/python upstream
	$(SERVICES) tests/python faults

test-long: toolchain brokers ## The full sizes: 100,000 events under kill -9, release build
	$(SERVICES) TIDINGS_LONG=1 cargo test --release --workspace --all-features
	tests/node addon --release
	$(SERVICES) cargo run --release -p tidings-faults -- --events 100000
	$(SERVICES) TIDINGS_ALARM=1 cargo test --release -p tidings --all-features --test amqp_alarm
	$(SERVICES) TIDINGS_LONG=1 tests/interop/run
	$(SERVICES) TIDINGS_LONG=1 tests/node
	$(SERVICES) tests/node package
	$(SERVICES) TIDINGS_LONG=1 tests/python
	$(SERVICES) tests/python faults --events 20000
	$(SERVICES) tests/python django
	$(SERVICES) tests/python wheel

faults: toolchain brokers ## Kills, cuts and freezes while a ledger counts (MINUTES=60: seeds at random for so long)
	tests/node addon
	tests/python module
	$(SERVICES) cargo run --release -p tidings-faults -- $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

bench: toolchain brokers ## Side by side with the peers; results in target/bench/results.json
	$(SERVICES) cargo run --release -p tidings-bench -- $(ARGS)

check: toolchain ## Format, lints, dependency rules
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	for feature in memory sqlite amqp catalog postgres mysql; do cargo clippy -p tidings --no-default-features --features $$feature -- -D warnings; done
	tests/release versions
	tests/release workflow
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps -p tidings --all-features
	tests/dependencies
	tests/interop/run lint
	tests/node lint
	tests/python lint

reference: toolchain ## Builds the references: rustdoc, pdoc and TypeDoc, in target/reference
	tests/references

release-check: toolchain ## Versions equal, packages build and install: what of a release works on one machine
	tests/release check
