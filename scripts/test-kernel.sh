#!/usr/bin/env bash
# Runs end-to-end tests in another kernel: virtual machines with one of Debian's kernels and nothing but the tests. They
# are emulated (QEMU's TCG), so that they also run where there is no KVM. That is several times slower, so the tests are
# dealt out to as many machines as there are processors here.
#
# usage: scripts/test-kernel.sh KERNEL TEST...
#        scripts/test-kernel.sh --list
#   KERNEL  a name from the list below, which --list prints
#   TEST    names of tests in e2e/tests
#
# Needs no root, but what `scripts/install-deps.sh build vm` installs. The kernel's package is unpacked below the target
# directory and never installed. Fails if a test fails or does not end in time, and if the kernel warns.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"

# One kernel a line: its name, a pattern of packages of which the newest is taken, and words in the names of tests that
# do not run there:
#   no_memory, without_memory   they make optmem_max small, which every network namespace has for itself since 6.9 only
#   of_another_build            they compile a BPF program
#   as_soon_as                  they race two processors, of which an emulated one may stand still for long
#   while_it_pins               they load many engines, which takes long in an emulated machine and is no other there
kernels() {
    cat <<-'KERNELS'
	6.1 linux-image-6\.1\.0-[0-9]+-cloud-amd64 no_memory without_memory of_another_build while_it_pins as_soon_as
	6.12 linux-image-6\.12\.[0-9]+\+deb12-cloud-amd64 of_another_build while_it_pins as_soon_as
	KERNELS
}

# What tests start besides their own programs, what these load, and modules that the kernel is asked for.
readonly PROGRAMS=(ip nft iptables-legacy iptables-legacy-restore iptables-legacy-save)
readonly PLUGINS=(/usr/lib/x86_64-linux-gnu/xtables/libxt_{standard,tcp}.so)
readonly MODULES=(cifs sctp dummy tcp_diag veth nf_tables nft_chain_nat nft_redir nft_ct iptable_filter xt_tcpudp)

readonly MACHINES=4 TEST_SECONDS=600 SECONDS_IN_ALL=2400

TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")
FOLDER=$TARGET/vm
readonly TARGET FOLDER

main() {
    if [ "$*" = --list ]; then
        kernels | cut -d' ' -f1
        return
    fi
    [ $# -ge 2 ] || die "usage: scripts/test-kernel.sh KERNEL TEST..."
    [ "$(uname -m)" = x86_64 ] || die "the kernels are for x86-64, and this is $(uname -m)"
    local name=$1 pattern kernel skip machine machines
    shift
    read -r _ pattern skip < <(kernels | grep "^${name//./\\.} ") ||
        die "$name: no such kernel; there is $(kernels | cut -d' ' -f1 | paste -sd' ')"
    mkdir -p "$FOLDER"
    kernel=$(fetch "$pattern")

    root=$(mktemp -d "$FOLDER/root.XXXXXX")
    trap 'rm -rf "$root"' EXIT
    fill_root "$kernel" "$@"
    init "$skip" >"$root/init"
    chmod +x "$root/init"
    (cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$FOLDER/$name.initrd"

    machines=$(nproc)
    machines=$((machines < MACHINES ? machines : MACHINES))
    echo "test-kernel $name: $# test programs in $machines machines; see $FOLDER/$name.*.log"
    rm -f "$FOLDER/$name".*.log
    for ((machine = 0; machine < machines; machine++)); do
        boot "$name" "$kernel" "$(share "$machine" "$machines" "$@")" >"$FOLDER/$name.$machine.log" &
    done
    wait
    cat "$FOLDER/$name".*.log
    judge "$name" "$machines" "$@"
}

# Every so manyth of the words, joined by commas.
share() {
    local machine=$1 machines=$2 i words=()
    shift 2
    for ((i = machine + 1; i <= $#; i += machines)); do
        words+=("${!i}")
    done
    (IFS=, && echo "${words[*]}")
}

# Prints the folder of the unpacked kernel; downloads it if it is not there.
fetch() {
    local package version kernel
    package=$(newest "$1")
    if [ -z "$package" ] && [ "$(id -u)" = 0 ]; then
        apt-get -qq update >&2
        package=$(newest "$1")
    fi
    [ -n "$package" ] || die "apt knows no package $1: run apt-get update, or add Debian 12's archive"
    version=$(apt-cache policy "$package" | awk '$1 == "Candidate:" { print $2 }')
    kernel=$FOLDER/${package}_$version

    if [ ! -d "$kernel" ]; then
        echo "downloading: $package $version" >&2
        rm -rf "$kernel.part"
        mkdir "$kernel.part"
        (
            cd "$kernel.part"
            apt-get -qq -o APT::Sandbox::User=root download "$package" >&2
            dpkg-deb -x ./*.deb .
            rm ./*.deb
            depmod -b . "$(release .)"
        ) || die "cannot download and unpack $package $version"
        mv "$kernel.part" "$kernel"
    fi
    echo "$kernel"
}

newest() {
    apt-cache --names-only search "^$1\$" | cut -d' ' -f1 | sort -V | tail -n1
}

release() {
    basename "$1"/lib/modules/*
}

# The machine's root file system: it is all in memory.
fill_root() {
    local kernel=$1 program kind name path
    shift
    mkdir -p "$root"/{bin,dev,proc,run,sbin,sys,tests,tmp,usr/sbin}
    add "$(command -v busybox)" /bin/busybox
    ln -s ../bin/busybox "$root/sbin/modprobe" # where the kernel looks for it
    for program in "${PROGRAMS[@]}"; do
        path=$(command -v "$program") || die "$program is missing: scripts/install-deps.sh vm"
        add "$path" "/usr/sbin/$program"
    done
    for path in "${PLUGINS[@]}"; do
        add "$path" "$path"
    done
    add_modules "$kernel"

    # The tests know their own programs by the path that cargo gave them.
    while read -r kind name path; do
        case $kind in
        test) add "$path" "/tests/$name" ;;
        bin) add "$path" "$path" ;;
        esac
    done < <(built "$@")
    for name in "$@"; do
        [ -e "$root/tests/$name" ] || die "cargo did not build the test $name"
    done
}

# A program without its debug information, and the libraries that it loads.
add() {
    local from=$1 to=$root$2 library
    mkdir -p "${to%/*}"
    llvm-strip -o "$to" "$from"
    while read -r library; do
        mkdir -p "$root${library%/*}"
        cp -Lu "$library" "$root$library"
    done < <(ldd "$from" 2>&1 | grep -o '/[^ ]*')
}

add_modules() {
    local module
    while read -r _ module _; do
        install -D -m 644 "$module" "$root/${module#"$1"/}"
    done < <(modprobe -a -d "$1" -S "$(release "$1")" --show-depends "${MODULES[@]}" | grep '^insmod ')
    cp "$1/lib/modules/$(release "$1")"/modules.{builtin*,order} "$root/lib/modules/$(release "$1")"
    depmod -b "$root" "$(release "$1")"
}

# Builds tests, and prints a line for each program: its kind, name and path.
built() {
    cargo test ${CI:+--locked} -p carnet-e2e "${@/#/--test=}" --no-run --message-format=json-render-diagnostics |
        sed -n 's/.*"kind":\["\(test\|bin\)"\].*"name":"\([^"]*\)","src_path".*"executable":"\([^"]*\)".*/\1 \2 \3/p'
}

# The machine's first process. Which tests are its own is on the kernel's command line. Tests that are ignored elsewhere
# need a module that is here. busybox poweroff ends the machine, and with it this script's waiting.
init() {
    local options=${1:+--skip ${1// / --skip }}
    cat <<-INIT
	#!/bin/busybox sh
	/bin/busybox --install -s /bin
	export PATH=/usr/sbin:/bin:/sbin
	mount -t proc proc /proc
	mount -t sysfs sysfs /sys
	mount -t devtmpfs devtmpfs /dev
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	mount -t bpf bpf /sys/fs/bpf
	ip link set lo up
	ulimit -H -n 1048576 # the kernel's own is smaller than on any distribution
	echo "==== Linux \$(uname -r)"
	for test in \$(sed 's/.*tests=\([^ ]*\).*/\1/; s/,/ /g' /proc/cmdline); do
	    timeout -s KILL $TEST_SECONDS /tests/\$test --test-threads=1 --color=never --include-ignored $options 2>&1
	    echo "==== \$test: status \$?, \$(cut -d. -f1 /proc/uptime) s after the start"
	done
	dmesg | grep -E 'WARNING:|BUG:|Oops:|general protection' | sed 's/^/==== kernel: /'
	echo '==== end'
	poweroff -f
	INIT
}

# Nothing but a panic is printed by the kernel itself (loglevel=1): it would come between the tests' words.
boot() {
    timeout --kill-after=10 "$SECONDS_IN_ALL" qemu-system-x86_64 -accel tcg -smp 2 -m 1G -nodefaults \
        -no-user-config -no-reboot -display none -monitor none -serial stdio -kernel "$2/boot/vmlinuz-$(release "$2")" \
        -initrd "$FOLDER/$1.initrd" -append "console=ttyS0 loglevel=1 panic=-1 oops=panic tests=$3" </dev/null |
        tr -d '\r' || true # what came of it is in the output
}

# Reads the machines' output. A test program that did not end by itself, or ran no test, is one failure.
judge() {
    local name=$1 machines=$2 log passed failed ended
    shift 2
    log=$(cat "$FOLDER/$name".*.log)
    read -r passed failed ended < <(awk '/^test result: / { passed += $4; failed += $6; ended += $4 + $6 > 0 }
        END { print passed + 0, failed + 0, ended + 0 }' <<<"$log")
    failed=$((failed + $# - ended))
    echo "test-kernel $name: $passed passed, $failed failed"
    [ "$(grep -c '^==== end$' <<<"$log")" = "$machines" ] ||
        die "a machine did not get to its end; the output is in $FOLDER/$name.*.log"
    ! grep -q '^==== kernel: ' <<<"$log" || die "the kernel warned; see $FOLDER/$name.*.log"
    [ "$failed" = 0 ]
}

die() {
    echo "test-kernel: $*" >&2
    exit 1
}

main "$@"
