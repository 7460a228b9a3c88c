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
KERNEL_TESTS := $(filter-out foreign cooperation containers unit examples ffi wine,$(notdir $(basename $(wildcard e2e/tests/*.rs)) \
	$(patsubst %/main.rs,%,$(wildcard e2e/tests/*/main.rs))))

##@ Use
.PHONY: help build demo
help: ## what you are reading
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9.-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

build: deps-build ## the command, optimised: target/release/carnet
	$(CARGO) build --release $(LOCKED) -p carnet-cli
	@echo "built: $(TARGET)/release/carnet"

# The C library. DESTDIR goes before every path, for those who build packages.
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
PROFILE ?= release
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n1)
BUILT := $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
.PHONY: install
install: deps-rust ## the library for C: libcarnet, its headers and carnet.pc; PREFIX=, LIBDIR=, DESTDIR=
	$(CARGO) rustc $(LOCKED) --profile $(PROFILE) -p carnet-ffi --lib --crate-type cdylib,staticlib -- \
		-C link-arg=-Wl,-soname,libcarnet.so.0,-z,nodelete
	install -d "$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(INCLUDEDIR)"
	install -m 755 "$(BUILT)/libcarnet_ffi.so" "$(DESTDIR)$(LIBDIR)/libcarnet.so.$(VERSION)"
	ln -sf libcarnet.so.$(VERSION) "$(DESTDIR)$(LIBDIR)/libcarnet.so.0"
	ln -sf libcarnet.so.0 "$(DESTDIR)$(LIBDIR)/libcarnet.so"
	install -m 644 "$(BUILT)/libcarnet_ffi.a" "$(DESTDIR)$(LIBDIR)/libcarnet.a"
	install -m 644 crates/carnet-ffi/include/*.h crates/carnet-abi/include/carnet_abi.h "$(DESTDIR)$(INCLUDEDIR)"
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
		-e 's|@VERSION@|$(VERSION)|' crates/carnet-ffi/carnet.pc.in | \
		install -m 644 /dev/stdin "$(DESTDIR)$(LIBDIR)/pkgconfig/carnet.pc"

# The command needs more to be built than the library, so it has a target of its own.
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man/man1
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSCONFDIR ?= /etc
COMPLETIONS = bash-completion/completions/carnet zsh/site-functions/_carnet fish/vendor_completions.d/carnet.fish
.PHONY: install-command uninstall-command
install-command: deps-build ## the command, its pages, completions, unit and first policy; PREFIX=, DESTDIR=
	$(CARGO) build $(LOCKED) --profile $(PROFILE) -p carnet-cli
	install -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(MANDIR)" "$(DESTDIR)$(UNITDIR)" "$(DESTDIR)$(SYSCONFDIR)/carnet" \
		$(foreach file,$(COMPLETIONS),"$(DESTDIR)$(PREFIX)/share/$(dir $(file))")
	install -m 755 "$(BUILT)/carnet" "$(DESTDIR)$(BINDIR)/carnet"
	"$(BUILT)/carnet" man "$(DESTDIR)$(MANDIR)"
	set -e; $(foreach file,$(COMPLETIONS),"$(BUILT)/carnet" completions $(firstword $(subst -, ,$(subst /, ,$(file)))) \
		>"$(DESTDIR)$(PREFIX)/share/$(file)";)
	sed 's|/usr/local/bin/|$(BINDIR)/|' packaging/systemd/carnet.service | \
		install -m 644 /dev/stdin "$(DESTDIR)$(UNITDIR)/carnet.service"
	test -e "$(DESTDIR)$(SYSCONFDIR)/carnet/policy.toml" || \
		install -m 644 docs/policy.example.toml "$(DESTDIR)$(SYSCONFDIR)/carnet/policy.toml"

uninstall-command: ## removes that again, but the policy; `carnet down` goes first
	rm -f "$(DESTDIR)$(BINDIR)/carnet" "$(DESTDIR)$(MANDIR)"/carnet{,-*}.1 "$(DESTDIR)$(UNITDIR)/carnet.service" \
		$(foreach file,$(COMPLETIONS),"$(DESTDIR)$(PREFIX)/share/$(file)")

demo: root-demo deps-demo build ## root: a client through two services, each hop shown
	CARNET=$(TARGET)/release/carnet scripts/demo.sh

##@ Test
TIERS := test-unit test-kernel test-foreign test-examples test-ffi test-wine
.PHONY: test tiers $(TIERS)
test: root-test deps-test deps-ffi $(TIERS) ## root: every tier below, after installing what they need

test-unit: deps-unit ## no root: models, parsers, the library, the documentation's code
	$(TEST) --workspace --exclude carnet-engine --exclude carnet-e2e --all-features
	$(TEST) $(if $(NEXTEST),--no-tests=pass) -p carnet-engine --lib
	$(CARGO) test --doc $(LOCKED) --workspace --exclude carnet-e2e --all-features

test-kernel: root-test-kernel debug ## root: the engine in this kernel, and end to end
	$(if $(KERNEL_TESTS),,$(error e2e/tests has no test))
	$(TEST) -p carnet-engine --test '*' $(ALONE)
	$(TEST) -p carnet-e2e --lib $(addprefix --test ,$(KERNEL_TESTS)) $(ALONE)

test-foreign: root-test-foreign deps-test debug ## root: HAProxy, Squid, mitmproxy, nginx, redsocks; curl, Go, Python, Java, Node; containers; the unit
	$(TEST) -p carnet-e2e --test foreign --test cooperation --test containers --test unit $(ALONE)

test-examples: root-test-examples deps-test debug ## root: the services in six languages which the documentation shows
	$(TEST) -p carnet-e2e --test examples $(ALONE)

test-ffi: root-test-ffi deps-ffi debug ## root: the library from C and C++, installed, and services in them, under valgrind
	$(TEST) -p carnet-e2e --test ffi $(ALONE)

# The service in Rust, as a Windows program. All features, for so test-windows builds it.
export CARNET_WINDOWS_SERVICE := $(TARGET)/windows/target/x86_64-pc-windows-gnu/debug/examples/service.exe
test-wine: root-test-wine deps-test deps-windows debug ## root: that service built for Windows, in Wine, in chains with Linux services
	@e2e/wine/version.sh
	environment=$$(scripts/windows.sh env) && eval "$$environment" && \
		cargo build $(LOCKED) --target x86_64-pc-windows-gnu -p carnet --example service --all-features
	$(CARGO) build $(LOCKED) -p carnet --example service
	$(TEST) -p carnet-e2e --test wine $(ALONE)

# No tier: it builds the command a second time, with YARA-X. The rest of its tests are in test-unit.
.PHONY: test-yara
test-yara: root-test-yara deps-test ## root: bodies scanned with YARA-X, end to end
	$(CARGO) build $(LOCKED) -p carnet-cli --features yara
	$(TEST) -p carnet-e2e --features yara --test proxy $(ALONE) open::scan

tiers:
	@echo $(TIERS)

##@ Test in another kernel
KERNELS := $(shell scripts/test-kernel.sh --list)
KERNELS_TESTS := chain connect query set provider identity original_dst sockname unaware unusual selftests matrix datagram truth \
	model pins
.PHONY: test-kernel-6.1 test-kernel-6.12
test-kernel-6.1: ## the kernel of Debian 12, emulated: end to end there
test-kernel-6.12: ## the same in a newer one
$(addprefix test-kernel-,$(KERNELS)): test-kernel-%: deps-vm
	scripts/test-kernel.sh $* $(KERNELS_TESTS)

##@ Test for Windows
.PHONY: test-windows
test-windows: deps-windows ## the library built for Windows: clippy, Microsoft's targets, its tests in Wine
	scripts/windows.sh check
	scripts/windows.sh test

##@ Measure
.PHONY: bench-policy
bench-policy: root-bench-policy deps-build ## root: what a policy of 4,096 filters and a million prefixes costs, against ten filters
	$(CARGO) bench $(LOCKED) -p carnet-engine --bench decision

BENCH := CARNET=$(TARGET)/release/carnet $(TARGET)/release/carnet-bench
.PHONY: bench bench-quick bench-micro bench-build
bench: root-bench bench-build ## root: Carnet against its peers, half an hour: bench/results; BENCH_OPTIONS=
	$(BENCH) compare $(BENCH_OPTIONS)

bench-quick: root-bench-quick bench-build ## root: the same in a minute or two, to see that it works
	$(BENCH) compare --quick --out $(TARGET)/bench-quick $(BENCH_OPTIONS)

bench-micro: root-bench-micro bench-build ## root: run time of each BPF program, and what single calls cost
	$(BENCH) micro $(BENCH_OPTIONS)

bench-build: deps-bench
	$(CARGO) build --release $(LOCKED) -p carnet-cli -p carnet-bench

##@ Check
.PHONY: lint audit docs-check fuzz fuzz-sockets loom leftovers fmt
lint: deps-build deps-lint ## formatting, clippy, shellcheck; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) fmt --manifest-path loom/Cargo.toml --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets --all-features -- -D warnings
	shellcheck .ci/run scripts/*.sh fuzz/run.sh e2e/wine/*.sh
	scripts/check-format.sh

audit: deps-audit ## licences, duplicates and sources of the dependencies
	$(CARGO) deny --locked check licenses bans sources

docs-check: ## paths, links and make targets named in documents and comments exist
	python3 scripts/check-docs.py --self-test
	python3 scripts/check-docs.py

FUZZ_TARGETS := $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs)))
fuzz: deps-fuzz ## each reader of foreign bytes: its corpus and 20,000 inputs more
	@set -e; for target in $(FUZZ_TARGETS); do fuzz/run.sh $$target -runs=20000 -verbosity=0; echo "fuzz $$target: nothing found"; done

loom: deps-rust ## every interleaving of the overlapped operations' state
	$(CARGO) test $(LOCKED) --manifest-path loom/Cargo.toml --target-dir $(TARGET)/loom

FUZZ_SECONDS ?= 600
fuzz-sockets: root-fuzz-sockets deps-build ## root: random socket calls against the model, ten minutes; FUZZ_SECONDS=, CARNET_MODEL_SEED=
	CARNET_MODEL_SECONDS=$(FUZZ_SECONDS) CARNET_MODEL_SEED=$(or $(CARNET_MODEL_SEED),$(shell date +%s)000) \
		$(CARGO) test $(LOCKED) -p carnet-e2e --test model -- --nocapture random_calls

leftovers: ## root: nothing of Carnet's is left in the kernel
	scripts/check-leftovers.sh

fmt: ## format the Rust code
	$(CARGO) fmt --all

.PHONY: debug deps-build deps-rust deps-unit deps-test deps-ffi deps-windows deps-bench deps-demo deps-vm deps-lint deps-audit
debug: deps-build
	$(CARGO) build $(LOCKED) -p carnet-cli

deps-build:
	@scripts/install-deps.sh build
deps-rust:
	@scripts/install-deps.sh rust
deps-unit:
	@scripts/install-deps.sh build unit
deps-test:
	@scripts/install-deps.sh build test
deps-ffi:
	@scripts/install-deps.sh build ffi
deps-windows:
	@scripts/install-deps.sh build windows
deps-bench:
	@scripts/install-deps.sh build bench
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
