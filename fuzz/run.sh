#!/usr/bin/env bash
# Fuzzes one reader with stable Rust: fuzz/run.sh TARGET [libFuzzer's options, say -runs=1000000].
# What it finds interesting stays in the target directory; an input that crashes is written beside this file.
set -euo pipefail
cd "$(dirname "$0")"

target=${1:?usage: fuzz/run.sh a file of fuzz_targets/ without .rs [-runs=N | -max_total_time=SECONDS]...}
shift
[ $# -gt 0 ] || set -- -max_total_time=60

# cargo-fuzz asks for nightly only to pass these by names of its own, and for the address sanitizer, which safe code
# does without. --target keeps them away from build scripts.
export RUSTFLAGS="-Cpasses=sancov-module -Ccodegen-units=1"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    RUSTFLAGS+=" -Cllvm-args=-sanitizer-coverage-$option"
done
host=$(rustc --print host-tuple)
directory=$(realpath -m "${CARGO_TARGET_DIR:-target}")

CARGO_TARGET_DIR=$directory cargo build --locked --release --target "$host" --bin "$target"
mkdir -p "$directory/corpus/$target"
exec "$directory/$host/release/$target" -max_len=1024 "$@" "$directory/corpus/$target" "corpus/$target"
