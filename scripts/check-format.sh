#!/usr/bin/env bash
# What rustfmt does not see: files end with one newline, no line ends in a blank, C and shell lines are at most 120
# columns (.editorconfig says the same to editors).
#
# usage: scripts/check-format.sh
set -euo pipefail
cd "$(dirname "$0")/.."

main() {
    local failed=0 file
    while read -r file; do
        [ -f "$file" ] || continue
        case $file in
        *.rs | *.c | *.h | *.sh | *.py | *.md | *.toml | Makefile | .ci/run) check "$file" || failed=1 ;;
        esac
    done < <(git ls-files --cached --others --exclude-standard)
    [ "$failed" = 0 ] || exit 1
}

check() {
    local found="" columns=0
    case $1 in
    *.c | *.h | *.sh | *.py) columns=120 ;;
    esac
    found=$(expand -t 8 "$1" | awk -v file="$1" -v columns="$columns" '
        /[ \t]$/ { print file ":" NR ": blank at the end of the line" }
        columns && length > columns { print file ":" NR ": longer than " columns " columns" }')
    if [ -s "$1" ] && [ -n "$(tail -c1 "$1")" ]; then
        found+=${found:+$'\n'}"$1: no newline at the end"
    elif [ -s "$1" ] && [ -z "$(tail -n1 "$1")" ]; then
        found+=${found:+$'\n'}"$1: empty lines at the end"
    fi
    [ -z "$found" ] && return
    echo "$found" >&2
    return 1
}

main
