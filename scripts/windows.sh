#!/usr/bin/env bash
# Checks, builds and tests on Linux what is also for Windows: with a compiler for it, and with Wine to run the tests.
#
# usage: scripts/windows.sh setup|check|test|env
#   setup   gets compiler and Wine ready, below the target directory; done once
#   check   clippy; and that it compiles for Microsoft's linker, on x86-64 and ARM
#   test    builds, and runs the tests
#   env     prints what a shell needs for a cargo of its own: eval "$(scripts/windows.sh env)"
#
# Needs no root, but what `scripts/install-deps.sh windows` installs. The compiler is the one on the path, if it has the
# targets or rustup can add them. Otherwise it is Debian 12's, unpacked and never installed, with a standard library
# that is built here. COMPILER=debian takes that one in any case.
set -euo pipefail
cd "$(dirname "$0")/.."

# The packages that are for Windows too. Each is built by itself: together they would lend each other features. The
# library for C only has to compile: its tests are programs for Linux.
readonly PACKAGES=(carnet carnet-contract) C_LIBRARY=carnet-ffi

readonly TARGET=x86_64-pc-windows-gnu CHECKED=(x86_64-pc-windows-msvc aarch64-pc-windows-msvc)
readonly DEBIANS=(rustc-web cargo-web rust-web-src rust-web-clippy)
readonly TEST_SECONDS=600

FOLDER=$(realpath -m "${CARGO_TARGET_DIR:-target}")/windows
RUST=$FOLDER/rust
PREFIX=$FOLDER/wine
# Silent, but for what explains why a program does not start.
readonly FOLDER RUST PREFIX WINE_SAYS=fixme-all,err-winediag,err-systray
LOCKED=()
[ -z "${CI:-}" ] || LOCKED=(--locked)
readonly LOCKED
# Of the Wine that this script starts.
SERVER_FILES=

main() {
    case ${1:-} in
    setup) setup ;;
    check) setup && check ;;
    test) setup && run_tests ;;
    env) setup >&2 && print_environment ;;
    *) die "usage: scripts/windows.sh setup|check|test|env" ;;
    esac
}

setup() {
    [ "$(uname -m)" = x86_64 ] || die "the tests are programs for x86-64, and this is $(uname -m)"
    mkdir -p "$FOLDER"
    wine >/dev/null
    command -v x86_64-w64-mingw32-gcc >/dev/null || die "no linker for Windows: run scripts/install-deps.sh windows"
    find_compiler
    if [ ! -e "$PREFIX/ready" ]; then
        make_prefix
    fi
}

# Another version's clippy has lints of its own, and false ones among them: of Debian's, those count that do not change.
check() {
    local package denied=(-D warnings)
    if [ -e "$RUST/ready" ]; then
        denied=(-D unused -D missing_docs -D clippy::correctness -D clippy::suspicious)
    fi
    for package in "${PACKAGES[@]}"; do
        step "clippy $package" with_compiler cargo clippy "${LOCKED[@]}" --target $TARGET -p "$package" --all-targets \
            --all-features -- "${denied[@]}"
        step "check $package without features" with_compiler cargo check "${LOCKED[@]}" --target $TARGET -p "$package"
    done
    step "check $C_LIBRARY" with_compiler cargo check "${LOCKED[@]}" --target $TARGET -p $C_LIBRARY --lib
    step "check for ${CHECKED[*]}" check_for_microsoft
}

run_tests() {
    local package
    begin_with_wine
    for package in "${PACKAGES[@]}"; do
        step "build $package" with_compiler cargo test "${LOCKED[@]}" --no-run --target $TARGET -p "$package" \
            --all-features
        step "test $package" with_compiler timeout "$TEST_SECONDS" cargo test "${LOCKED[@]}" --no-fail-fast \
            --target $TARGET -p "$package" --all-features
    done
}

# All packages at once, for time's sake: that each is complete is seen above. Where these targets have no standard
# library it is only checked, too, and tests are left out.
check_for_microsoft() {
    local targets=("${CHECKED[@]/#/--target=}") packages=("${PACKAGES[@]/#/--package=}" --all-features)
    if [ -e "$RUST/ready" ]; then
        with_compiler env CARGO_TARGET_DIR="$FOLDER/microsoft" RUSTC_BOOTSTRAP=1 \
            cargo check "${LOCKED[@]}" "${targets[@]}" "${packages[@]}" --package=$C_LIBRARY \
            -Zbuild-std=std,panic_unwind -Zbuild-std-features=panic-unwind
    else
        with_compiler cargo check "${LOCKED[@]}" "${targets[@]}" "${packages[@]}" --all-targets
        with_compiler cargo check "${LOCKED[@]}" "${targets[@]}" --package=$C_LIBRARY --lib
    fi
}

# Debian's compiler stays, once it is there.
find_compiler() {
    if [ -e "$RUST/ready" ]; then
        return
    elif [ "${COMPILER:-}" = debian ] || ! { has_targets || add_targets; }; then
        unpack_compiler
        build_std
        touch "$RUST/ready"
    fi
}

has_targets() {
    local target
    for target in $TARGET "${CHECKED[@]}"; do
        [ -d "$(rustc --print target-libdir --target "$target" 2>/dev/null)" ] || return 1
    done
}

add_targets() {
    # In somebody else's toolchain there would be files of root's.
    command -v rustup >/dev/null && [ -O "$(rustc --print sysroot)" ] || return 1
    echo "windows: adding rustup's targets"
    timeout 60 rustup --quiet target add $TARGET "${CHECKED[@]}" && has_targets
}

# With the libraries that it needs and this machine has not. Their names carry versions, so apt is asked for them.
unpack_compiler() {
    local names
    names=$(missing_packages) || { [ "$(id -u)" = 0 ] && apt-get -qq update && names=$(missing_packages); } ||
        die "this compiler has no targets for Windows, and there is none to download.
With rustup: rustup target add $TARGET ${CHECKED[*]}
On Debian 12, where apt may know its packages not yet: apt-get update"

    rm -rf "$RUST"
    mkdir -p "$RUST/debs"
    (
        cd "$RUST/debs" || exit
        # shellcheck disable=SC2086 # a word for each package
        apt-get -qq -o APT::Sandbox::User=root download "${DEBIANS[@]}" $names || exit
        for package in ./*.deb; do
            dpkg-deb -x "$package" .. || exit
        done
    ) || die "cannot download and unpack Debian's compiler"
    rm -r "$RUST/debs"
}

# Without optimisation and without names in backtraces: it takes less than half the time.
build_std() {
    local folder=$RUST/std library=$RUST/usr/lib/rustlib/$TARGET/lib
    mkdir -p "$folder/src" "$library"
    : >"$folder/src/lib.rs"
    printf '[package]\nname = "nothing"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >"$folder/Cargo.toml"
    (
        cd "$folder" || exit
        export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$folder/target CARGO_PROFILE_RELEASE_OPT_LEVEL=0
        unpacked cargo build --quiet --release --target $TARGET -Zbuild-std=std,panic_unwind,test \
            -Zbuild-std-features=panic-unwind
    ) || die "cannot build the standard library for $TARGET"
    find "$folder/target/$TARGET/release/deps" -name '*.rlib' ! -name 'libnothing*' -exec cp -t "$library" {} +
    rm -r "$folder"
}

# pipefail: nothing where apt does not know Debian's compiler.
missing_packages() {
    apt-get -s -o Debug::NoLocking=1 install --no-install-recommends "${DEBIANS[@]}" 2>/dev/null |
        awk '/^Inst / { print $2 }'
}

make_prefix() {
    begin_with_wine
    rm -rf "$PREFIX"
    # It would ask whether to download .NET and a browser.
    with_wine env WINEDLLOVERRIDES='mscoree,mshtml=' timeout 300 "$(wine)" wineboot --init \
        >"$FOLDER/wineboot.log" 2>&1 || die "Wine does not start; see $FOLDER/wineboot.log"
    add_random "$PREFIX/drive_c/windows/system32/bcryptprimitives.dll"
    with_wine "$(dirname "$(wine)")/wineserver" --wait
    touch "$PREFIX/ready"
}

# Rust's standard library takes its random numbers from a DLL which Debian 12's Wine lacks.
add_random() {
    [ ! -e "$1" ] || return 0
    x86_64-w64-mingw32-gcc -shared -s -O2 -o "$1" e2e/wine/prng.c -ladvapi32
}

# Its server ends with this script, and what it leaves in the folder for temporary files goes as well.
begin_with_wine() {
    [ -z "$SERVER_FILES" ] || return 0
    SERVER_FILES=$(mktemp -d)
    export TMPDIR=$SERVER_FILES
    trap stop_wine EXIT
}

stop_wine() {
    with_wine "$(dirname "$(wine)")/wineserver" --kill || true # 1 where none runs
    rm -rf "$SERVER_FILES"
}

wine() {
    local path
    for path in /usr/lib/wine/wine64 "$(command -v wine64 || true)" "$(command -v wine || true)"; do
        if [ -x "$path" ]; then
            echo "$path"
            return
        fi
    done
    die "no Wine: run scripts/install-deps.sh windows"
}

# A command in the environment that `env` prints. It is in a process of its own: nothing of it is left here.
with_compiler() (
    eval "$(print_environment)"
    "$@"
)

with_wine() {
    env -u LD_LIBRARY_PATH WINEPREFIX="$PREFIX" WINEDEBUG="$WINE_SAYS" "$@"
}

unpacked() {
    env LD_LIBRARY_PATH="$RUST/usr/lib/x86_64-linux-gnu" PATH="$RUST/usr/bin:$PATH" RUSTC="$RUST/usr/bin/rustc" "$@"
}

# Debian's compiler finds its libraries by LD_LIBRARY_PATH, with which Wine would take the wrong ones.
print_environment() {
    if [ -e "$RUST/ready" ]; then
        cat <<-ENVIRONMENT
		export PATH="$RUST/usr/bin:\$PATH" LD_LIBRARY_PATH="$RUST/usr/lib/x86_64-linux-gnu"
		export CARGO="$RUST/usr/bin/cargo" RUSTC="$RUST/usr/bin/rustc" RUSTDOC="$RUST/usr/bin/rustdoc"
	ENVIRONMENT
    fi
    cat <<-ENVIRONMENT
	export CARGO_TARGET_DIR="$FOLDER/target" WINEPREFIX="$PREFIX" WINEDEBUG="$WINE_SAYS"
	export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER="env -u LD_LIBRARY_PATH $(wine)"
	ENVIRONMENT
}

step() {
    local name=$1 start=$SECONDS
    shift
    "$@" || die "$name: failed"
    echo "windows: $name: $((SECONDS - start)) s"
}

die() {
    echo "windows: $*" >&2
    exit 1
}

main "$@"
