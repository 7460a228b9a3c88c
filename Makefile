# `make` lists what there is. Test tiers are separate, so that a reader knows which of them needs root.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
LOCKED := $(if $(CI),--locked)
export PATH := $(TARGET)/tools/bin:$(PATH):/usr/sbin:/sbin

# cargo-nextest where it is installed: each test has its own process, and a tier without a test fails. Else cargo test,
# where tests that touch the kernel run one at a time.
NEXTEST := $(shell $(CARGO) nextest --version 2>/dev/null)
TEST := $(CARGO) $(if $(NEXTEST),nextest run --no-fail-fast,test --no-fail-fast) $(LOCKED)
ALONE := $(if $(NEXTEST),,-- --test-threads=1)

# The end-to-end tests start the command, and find it here.
export CARNET := $(TARGET)/debug/carnet
KERNEL_TESTS := $(filter-out foreign examples,$(notdir $(basename $(wildcard e2e/tests/*.rs)) \
	$(patsubst %/main.rs,%,$(wildcard e2e/tests/*/main.rs))))

##@ Use
.PHONY: help build demo
help: ## what you are reading
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9.-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

build: deps-build ## the command, optimised: target/release/carnet
	$(CARGO) build --release $(LOCKED) -p carnet-cli
	@echo "built: $(TARGET)/release/carnet"

demo: root-demo deps-demo build ## root: a client through two services, each hop shown
	CARNET=$(TARGET)/release/carnet scripts/demo.sh

##@ Test
TIERS := test-unit test-kernel test-foreign test-examples
.PHONY: test tiers $(TIERS)
test: root-test deps-test $(TIERS) ## root: every tier below, after installing what they need

test-unit: deps-build ## no root: models, parsers, the library, the documentation's code
	$(TEST) --workspace --exclude carnet-engine --exclude carnet-e2e --all-features
	$(TEST) $(if $(NEXTEST),--no-tests=pass) -p carnet-engine --lib
	$(CARGO) test --doc $(LOCKED) --workspace --exclude carnet-e2e --all-features

test-kernel: root-test-kernel debug ## root: the engine in this kernel, and end to end
	$(if $(KERNEL_TESTS),,$(error e2e/tests has no test))
	$(TEST) -p carnet-engine --test '*' $(ALONE)
	$(TEST) -p carnet-e2e --lib $(addprefix --test ,$(KERNEL_TESTS)) $(ALONE)

test-foreign: root-test-foreign deps-test debug ## root: HAProxy, redsocks, mitmproxy; curl, Go, Python, Java, Node
	$(TEST) -p carnet-e2e --test foreign $(ALONE)

test-examples: root-test-examples deps-test debug ## root: the services in Rust, Python and C which the documentation shows
	$(TEST) -p carnet-e2e --test examples $(ALONE)

tiers:
	@echo $(TIERS)

##@ Test in another kernel
KERNELS := $(shell scripts/test-kernel.sh --list)
KERNELS_TESTS := chain connect records query set provider flow original_dst unaware orders events unusual selftests matrix \
	datagram truth model misbehaving
.PHONY: test-kernel-6.1 test-kernel-6.12
test-kernel-6.1: ## the kernel of Debian 12, emulated: end to end there
test-kernel-6.12: ## the same in a newer one
$(addprefix test-kernel-,$(KERNELS)): test-kernel-%: deps-vm
	scripts/test-kernel.sh $* $(KERNELS_TESTS)

##@ Check
.PHONY: lint audit docs-check fuzz fuzz-sockets leftovers fmt
lint: deps-build deps-lint ## formatting, clippy, shellcheck; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets --all-features -- -D warnings
	shellcheck .ci/run scripts/*.sh fuzz/run.sh
	scripts/check-format.sh

audit: deps-audit ## licences, duplicates and sources of the dependencies
	$(CARGO) deny --locked check licenses bans sources

docs-check: ## paths, links and make targets named in documents and comments exist
	python3 scripts/check-docs.py --self-test
	python3 scripts/check-docs.py

FUZZ_TARGETS := $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs)))
fuzz: deps-fuzz ## each reader of foreign bytes: its corpus and 20,000 inputs more
	@set -e; for target in $(FUZZ_TARGETS); do fuzz/run.sh $$target -runs=20000 -verbosity=0; echo "fuzz $$target: nothing found"; done

FUZZ_SECONDS ?= 600
fuzz-sockets: root-fuzz-sockets deps-build ## root: random socket calls against the model, ten minutes; FUZZ_SECONDS=, CARNET_MODEL_SEED=
	CARNET_MODEL_SECONDS=$(FUZZ_SECONDS) CARNET_MODEL_SEED=$(or $(CARNET_MODEL_SEED),$(shell date +%s)000) \
		$(CARGO) test $(LOCKED) -p carnet-e2e --test model -- --nocapture random_calls

leftovers: ## root: nothing of Carnet's is left in the kernel
	scripts/check-leftovers.sh

fmt: ## format the Rust code
	$(CARGO) fmt --all

.PHONY: debug deps-build deps-test deps-demo deps-vm deps-lint deps-audit
debug: deps-build
	$(CARGO) build $(LOCKED) -p carnet-cli

deps-build:
	@scripts/install-deps.sh build
deps-test:
	@scripts/install-deps.sh build test
deps-demo:
	@scripts/install-deps.sh build demo
deps-vm:
	@scripts/install-deps.sh build vm
deps-lint:
	@scripts/install-deps.sh lint
deps-fuzz:
	@scripts/install-deps.sh fuzz
deps-audit:
	@scripts/install-deps.sh audit

root-%:
	@scripts/require-root.sh $*
