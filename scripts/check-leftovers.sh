#!/usr/bin/env bash
# Fails if tests or commands left anything of Carnet's in the kernel: cgroups, network namespaces, BPF programs, links
# or pins, or processes in its cgroups. Everything of Carnet's is named carnet*, so that this can see it.
#
# The kernel takes BPF objects and cgroups away a moment after the last descriptor is closed, so it looks again for up
# to ten seconds.
#
# usage: scripts/check-leftovers.sh
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

main() {
    [ "$(id -u)" = 0 ] || die "only root can list BPF programs"
    bpftool version >/dev/null 2>&1 || die "bpftool is missing or does not run: scripts/install-deps.sh test"

    local left deadline=$((SECONDS + 10))
    while left=$(leftovers); [ -n "$left" ]; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "check-leftovers: still there:" >&2
            echo "$left" >&2
            echo "(If another carnet is running, this may be its own.)" >&2
            exit 1
        fi
        sleep 0.2
    done
    echo "check-leftovers: nothing left behind"
}

# One leftover a line.
leftovers() {
    local mount
    while read -r mount; do
        find "$mount" -mindepth 1 -type d -name 'carnet*' -prune 2>/dev/null | sed 's/^/cgroup: /' || true
    done < <(awk '$3 == "cgroup2" { print $2 }' /proc/self/mounts)
    find /run/netns -mindepth 1 -maxdepth 1 -name 'carnet*' 2>/dev/null | sed 's/^/network namespace: /' || true
    find /sys/fs/bpf -mindepth 1 -name 'carnet*' -prune 2>/dev/null | sed 's/^/pin: /' || true
    processes
    programs
}

# A program that is alive has a link, a pin or a descriptor that keeps it so; the links are named with it.
programs() {
    local id name links
    links=$(bpftool link show)
    while read -r id name; do
        echo "program: $name (id ${id%:})$(awk -v id="$id" \
            '$1 ~ /^[0-9]+:$/ { link = $1 } $3 == "prog" && $4 ":" == id { printf ", link %s", link }' <<<"$links")"
    done < <(bpftool prog show | sed -n 's/^\([0-9]*:\) .* name \(carnet[^ ]*\) .*/\1 \2/p')
}

processes() {
    local file pid
    for file in /proc/[0-9]*/cgroup; do
        if grep -q '^0::.*/carnet' "$file" 2>/dev/null; then
            pid=${file//[^0-9]/}
            echo "process: $pid $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null || true)"
        fi
    done
}

die() {
    echo "check-leftovers: $*" >&2
    exit 1
}

main "$@"
