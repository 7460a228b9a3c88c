#!/usr/bin/env bash
# Builds the two libraries of this directory, each as bcryptprimitives.dll: what a Windows program loads when it starts.
# Does nothing where they are there and their sources are what they were.
#
# usage: e2e/wine/build.sh DIR
#   DIR/shim    answers the three codes of connection redirection
#   DIR/plain   does not, so that Wine's own answer is what the program gets
set -euo pipefail
[ $# = 1 ] || { echo "usage: e2e/wine/build.sh DIR" >&2; exit 2; }
here=$(realpath "$(dirname "$0")")
abi=$(realpath "$here/../../crates/carnet-abi/include")

main() {
    local sources
    sources=$(sha256sum "$here"/*.[ch] "$here"/linux/*.h "$abi"/*.h "$here/build.sh")
    [ "$sources" != "$(cat sources 2>/dev/null)" ] || return 0
    library shim prng.c hook.c ioctl.c engine.c
    library plain prng.c
    echo "$sources" >sources
}

library() {
    local name=$1
    shift
    mkdir -p "$name" "$name.new"
    x86_64-w64-mingw32-gcc -DWIN32_LEAN_AND_MEAN -O2 -Wall -Wextra -Werror -shared -s -I "$here" -I "$abi" \
        -o "$name.new/bcryptprimitives.dll" "${@/#/$here/}" -ladvapi32 -lws2_32
    # In one step, for a program may be starting with the one before; and not from another name, for it is in the file.
    mv "$name.new/bcryptprimitives.dll" "$name/bcryptprimitives.dll"
    rmdir "$name.new"
}

mkdir -p "$1"
cd "$1"
main
