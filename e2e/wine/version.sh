#!/usr/bin/env bash
# Fails where Wine is another than the one that the shim has been tried with. CARNET_ANY_WINE=1: goes on all the same.
set -euo pipefail
wine=/usr/lib/wine/wine64
version=$(env -u LD_LIBRARY_PATH "$wine" --version) || { echo "test-wine: $wine does not run" >&2; exit 1; }
[[ $version != wine-8.* ]] || exit 0
echo "test-wine: needs Wine 8, as in Debian 12, and this is ${version#wine-}" >&2
[ "${CARNET_ANY_WINE:-}" = 1 ] || { echo "To try it with this one: make test-wine CARNET_ANY_WINE=1" >&2; exit 1; }
