#!/usr/bin/env bash
# Ends with a clear word where the tests that attach programs to cgroups could not do so. A missing privilege is a
# failure: a tier that skips its tests would look like one that passes them.
#
# usage: scripts/require-root.sh WHAT
set -euo pipefail

if [ "$(id -u)" != 0 ]; then
    echo "make $1 needs root, to load BPF programs and make network namespaces. Run:" >&2
    echo "    sudo env \"PATH=\$PATH\" \"RUSTUP_HOME=\$HOME/.rustup\" make $1" >&2
    exit 1
fi
if ! grep -q ' cgroup2 ' /proc/self/mounts; then
    echo "make $1 needs a cgroup2 mount, and /proc/self/mounts has none. Run:" >&2
    echo "    mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified" >&2
    exit 1
fi
