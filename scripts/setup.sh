#!/usr/bin/env bash
# Installs what build and tests need and the machine lacks: a C++ compiler, make, libclang (bindgen
# reads RocksDB's headers with it) and iproute2. On Debian and Ubuntu, as root or with sudo; otherwise it prints
# the one line to run and exits. Installs nothing when nothing is missing.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")

check_rust() {
    { command -v cargo && command -v rustc; } >/dev/null ||
        die "Rust is missing: install Rust $wanted or later with rustup, then run this again"
    local have
    have=$(cd "$root" && rustc --version | awk '{print $2}')
    [ "$(printf '%s\n' "$wanted" "${have%%-*}" | sort -V | head -n 1)" = "$wanted" ] ||
        die "Rust $have is too old, $wanted or later is needed: run 'rustup update stable'"
}

has_header() { printf '#include <%s>\nint main(void) { return 0; }\n' "$1" | "$2" -x "$3" -fsyntax-only - 2>/dev/null; }

# The versions of libclang that are complete: the library and the compiler's own headers.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && [ -e "$LIBCLANG_PATH" ] && return 0
    local dir
    for dir in /usr/lib/llvm-*; do
        compgen -G "$dir/lib/libclang*.so*" >/dev/null || continue
        compgen -G "$dir/lib/clang/*/include/stdbool.h" >/dev/null && return 0
    done
    # Elsewhere than Debian puts it.
    command -v clang >/dev/null && ldconfig -p 2>/dev/null | grep -q 'libclang[-.]'
}

# Of the versions that the configured archives have both packages of: the distribution's own, which
# is the one it tests, else the newest.
libclang_packages() {
    local versions own version
    versions=$(comm -12 \
        <(apt-cache search --names-only '^libclang1-[0-9]+$' | sed -n 's/^libclang1-\([0-9]\+\) .*/\1/p' | sort) \
        <(apt-cache search --names-only '^libclang-common-[0-9]+-dev$' | sed -n 's/^libclang-common-\([0-9]\+\)-dev .*/\1/p' | sort))
    own=$(apt-cache depends libclang-dev 2>/dev/null | sed -n 's/.*Depends: libclang-\([0-9]\+\)-dev$/\1/p' | head -n 1)
    version=$(grep -x "${own:-none}" <<<"$versions" || sort -n <<<"$versions" | tail -n 1)
    [ -n "$version" ] && echo "libclang1-$version libclang-common-$version-dev"
}

missing=()
need() { # package, check...
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

can_install() {
    [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; }
}

check_rust
need gcc command -v gcc
need g++ command -v g++
need make command -v make
need libc6-dev has_header stdio.h gcc c
# Tests that put members into network namespaces, where this machine allows it.
if unshare --net true 2>/dev/null; then
    need iproute2 command -v ip
    need iproute2 command -v tc
fi
if ((${#missing[@]} == 0)) && has_libclang; then
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    die "missing: ${missing[*]} $(has_libclang || echo libclang); install them with the package manager of this system"
fi
clang=()
if ! has_libclang; then
    if ! libclang_packages >/dev/null; then
        if can_install; then as_root apt-get update -qq; fi
    fi
    read -r -a clang <<<"$(libclang_packages || echo "libclang-dev")"
fi
line="apt-get install -y --no-install-recommends ${missing[*]} ${clang[*]}"
if ! can_install; then
    say "Something is missing that only root can install. Run this, then try again:"
    say "    sudo sh -c 'apt-get update && $line'"
    exit 1
fi
say "Installing: ${missing[*]} ${clang[*]}"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # the line is words
as_root $line || { as_root apt-get update -qq && as_root $line; } ||
    die "could not install them; run this by hand: $line"
has_libclang || die "libclang is still not found; set LIBCLANG_PATH to the directory that holds libclang.so"
