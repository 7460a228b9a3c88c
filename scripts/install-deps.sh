#!/usr/bin/env bash
# Installs what Carnet is built and tested with, from the distribution's packages (Debian 12, Ubuntu 24.04 and newer).
#
# usage: scripts/install-deps.sh GROUP...
#   build   compilers and headers
#   rust    what the library alone is built with: Rust and a linker
#   unit    the programs which the tests without root run
#   test    the foreign programs which the tests run: proxies, and clients and services in five languages
#   ffi     what the tests of the C library build and run with: C++, a Windows compiler, valgrind
#   windows a linker for Windows, and Wine, which runs what is built
#   bench   the peers which `make bench` measures
#   demo    what `make demo` shows
#   vm      an emulator, for tests in another kernel
#   lint    shellcheck
#   audit   cargo-deny, built from source (about a minute), below the target directory
#
# Says nothing and asks nobody when nothing is missing. Otherwise it needs root, or sudo.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CARGO_DENY_VERSION=0.20.2
readonly MITMPROXY_VERSION=11.0.2
TOOLS=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools
readonly TOOLS
export PATH="$TOOLS/bin:$PATH:/usr/sbin:/sbin"

main() {
    [ $# -gt 0 ] ||
        die "usage: scripts/install-deps.sh build|rust|unit|test|ffi|windows|bench|demo|vm|lint|fuzz|audit..."
    local group wanted="" choices=()
    for group in "$@"; do
        wanted+=$(needs "$group")$'\n' || exit 1
    done

    mapfile -t choices < <(missing <<<"$wanted" | cut -d' ' -f3 | sort -u)
    install_packages "${choices[@]}"
    for group in "$@"; do
        case $group in
        build | rust) check_rust ;;
        test | bench) check_mitmproxy ;;
        audit) install_cargo_deny ;;
        esac
    done

    local left
    left=$(missing <<<"$wanted")
    [ -z "$left" ] || die "still missing after the installation:"$'\n'"$left"
}

# One need a line: how to see it (a command on the path, or a file), its name, and the package it comes from. Where
# distributions disagree about a package's name, the names are separated by '|' and the first that exists is taken.
needs() {
    case $1 in
    build) cat <<-'NEEDS' ;;
		command clang clang
		command llvm-strip llvm
		file /usr/include/bpf/bpf_helpers.h libbpf-dev
		file /usr/include/libelf.h libelf-dev
		file /usr/include/zlib.h zlib1g-dev
		file /usr/include/stdio.h libc6-dev
		file /usr/include/linux/bpf.h linux-libc-dev
		command gcc gcc
		command make make
		command pkg-config pkg-config
	NEEDS
    # With whatever a linker needs, where it is missing.
    rust) echo "command gcc build-essential" ;;
    unit) cat <<-'NEEDS' ;;
		command curl curl
		command python3 python3
		command openssl openssl
		command update-ca-certificates ca-certificates
	NEEDS
    test) node_headers && cat <<-'NEEDS' ;;
		command bpftool bpftool|linux-tools-generic
		command ip iproute2
		command nft nftables
		command iptables iptables
		command haproxy haproxy
		command squid squid
		command nginx nginx
		file /usr/lib/nginx/modules/ngx_stream_module.so libnginx-mod-stream
		command redsocks redsocks
		command microsocks microsocks
		command mitmdump mitmproxy|python3-venv
		command curl curl
		command openssl openssl
		command tshark tshark
		command python3 python3
		command go golang-go
		command java default-jdk-headless
		command javac default-jdk-headless
		file /usr/share/java/jna.jar libjna-java
		command node nodejs
		command unshare util-linux
		command setpriv util-linux
		command systemd-analyze systemd
		command crun crun
		command bwrap bubblewrap
		command gcc gcc
	NEEDS
    ffi) cat <<-'NEEDS' ;;
		command gcc gcc
		command g++ g++
		command pkg-config pkg-config
		command x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64
		command valgrind valgrind
		file /usr/lib/debug/.build-id libc6-dbg
		command curl curl
		command python3 python3
	NEEDS
    windows) cat <<-'NEEDS' ;;
		command x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64
		file /usr/lib/wine/wine64 wine64
		command dpkg-deb dpkg
	NEEDS
    bench) cat <<-'NEEDS' ;;
		command ip iproute2
		command nft nftables
		command haproxy haproxy
		command nginx nginx
		command redsocks redsocks
		command microsocks microsocks
		command proxychains4 proxychains4
		command mitmdump mitmproxy|python3-venv
		command unshare util-linux
		command setpriv util-linux
	NEEDS
    demo) cat <<-'NEEDS' ;;
		command bpftool bpftool|linux-tools-generic
		command curl curl
		command openssl openssl
		command python3 python3
	NEEDS
    vm) cat <<-'NEEDS' ;;
		command qemu-system-x86_64 qemu-system-x86
		command busybox busybox-static
		command cpio cpio
		command depmod kmod
		command dpkg-deb dpkg
		command ip iproute2
		command nft nftables
		command iptables-legacy iptables
	NEEDS
    lint) echo "command shellcheck shellcheck" ;;
    fuzz) echo "command g++ g++" ;;
    audit) ;;
    *) die "$1: no such group: build, rust, unit, test, ffi, windows, bench, demo, vm, lint, fuzz, audit" ;;
    esac
}

# Where Node came from nodejs.org or from NodeSource, they are beside it; Debian's come in a package of their own.
node_headers() {
    local prefix=/usr
    command -v node >/dev/null && prefix=$(node -p 'path.resolve(process.execPath, "../..")')
    echo "file $prefix/include/node/node_api.h libnode-dev"
}

# Of the needs on standard input, those that are not met.
missing() {
    local kind name package
    while read -r kind name package; do
        case $kind in
        command) command -v "$name" >/dev/null || echo "$kind $name $package" ;;
        file) [ -e "$name" ] || echo "$kind $name $package" ;;
        esac
    done
}

install_packages() {
    local choice packages=() services=()
    [ $# -gt 0 ] || return 0
    echo "missing: $*"
    command -v apt-get >/dev/null || die "no apt-get here: install them yourself (these are Debian's names)"

    as_root apt-get -qq update
    for choice in "$@"; do
        packages+=("$(first_available "$choice")")
    done
    for choice in haproxy nginx redsocks squid; do
        command -v "$choice" >/dev/null || services+=("$choice")
    done

    echo "installing: ${packages[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
        install -y --no-install-recommends "${packages[@]}" </dev/null
    hash -r
    for choice in "${services[@]}"; do
        silence "$choice"
    done
}

first_available() {
    local package
    for package in ${1//|/ }; do
        if [[ $(apt-cache policy "$package") =~ Candidate:\ [^\(] ]]; then
            echo "$package"
            return
        fi
    done
    die "no package ${1//|/ or } is known here; on Ubuntu, enable the 'universe' archive"
}

# The tests start these programs themselves. As services they would only hold ports.
silence() {
    if [ -d /run/systemd/system ]; then
        as_root systemctl disable --now "$1" >/dev/null 2>&1 || true
    elif [ -x "/etc/init.d/$1" ]; then
        as_root "/etc/init.d/$1" stop >/dev/null 2>&1 || true
    fi
}

check_rust() {
    local wanted found hint=""
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if [ -n "${SUDO_USER:-}" ]; then
        # shellcheck disable=SC2016 # the user's shell is to fill these in
        hint='. Where the user has it: sudo env "PATH=$PATH" "RUSTUP_HOME=$HOME/.rustup" make ...'
    fi
    command -v cargo >/dev/null || die "no cargo on the path; install Rust $wanted or newer: https://rustup.rs$hint"
    found=$(rustc --version | cut -d' ' -f2)
    printf '%s\n' "$wanted" "$found" | sort -VC ||
        die "rustc is $found, and Carnet needs $wanted or newer: rustup update"
}

# Some distributions have no mitmproxy, or one that their Python no longer runs.
check_mitmproxy() {
    mitmdump --version >/dev/null 2>&1 && return
    echo "installing: mitmproxy $MITMPROXY_VERSION below $TOOLS"
    # Not the first python3 on the path: that may be one without ensurepip.
    /usr/bin/python3 -m venv "$TOOLS/mitmproxy" || die "python3 has no venv: apt-get install python3-venv"
    "$TOOLS/mitmproxy/bin/pip" install --quiet "mitmproxy==$MITMPROXY_VERSION"
    mkdir -p "$TOOLS/bin"
    ln -sf ../mitmproxy/bin/mitmdump "$TOOLS/bin/mitmdump"
    hash -r
    "$TOOLS/bin/mitmdump" --version >/dev/null || die "mitmdump does not start"
}

install_cargo_deny() {
    command -v cargo-deny >/dev/null && return
    # Unoptimised: it compiles in half the time, and runs in a second either way.
    env -u CARGO_TARGET_DIR cargo install --quiet --locked --debug --root "$TOOLS" "cargo-deny@$CARGO_DENY_VERSION"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "installing packages needs root, and there is no sudo: run this script as root"
    fi
}

die() {
    echo "install-deps: $*" >&2
    exit 1
}

main "$@"
