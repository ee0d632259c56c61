#!/usr/bin/env bash
# Builds the RocksDB library once per crate version and compiler, and keeps it in the cache
# directory, so that every profile, target directory and clone links the same one. Prints what to
# export; use it as   eval "$(scripts/rocksdb.sh)"
#
# Never required: where it cannot, it prints nothing, and cargo builds the bundled RocksDB.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

give_up() { say "rocksdb: $*; cargo builds its own (some minutes more for each profile)"; exit 0; }

if [ -n "${ROCKSDB_LIB_DIR:-}" ]; then
    # Somebody has decided already.
    printf 'export ROCKSDB_LIB_DIR=%q\n' "$ROCKSDB_LIB_DIR"
    [ -z "${ROCKSDB_STATIC:-}" ] || printf 'export ROCKSDB_STATIC=%q\n' "$ROCKSDB_STATIC"
    exit 0
fi

version=$(grep -A 1 '^name = "librocksdb-sys"$' "$root/Cargo.lock" | sed -n 's/^version = "\([^+"]*\).*"/\1/p')
compiler=$("${CXX:-g++}" -dumpversion 2>/dev/null) || give_up "there is no C++ compiler"
[ -n "$version" ] || give_up "Cargo.lock names no librocksdb-sys"
place=$cache/rocksdb/rocksdb-sys-$version-gcc$compiler
library=$place/librocksdb.a

build() {
    local work=$1
    mkdir -p "$work/src"
    : >"$work/src/lib.rs"
    # The same features and exact versions as the workspace has.
    cat >"$work/Cargo.toml" <<TOML
[package]
name = "rocksdb-once"
edition = "2021"

[dependencies]
$(grep '^rocksdb = ' "$root/Cargo.toml")

[workspace]

[profile.release]
opt-level = 3
debug = false
TOML
    cp "$root/Cargo.lock" "$work/Cargo.lock"
    (cd "$work" && CARGO_TARGET_DIR=$work/target cargo build --release --package librocksdb-sys) >&2 || return 1
    local built
    built=$(find "$work/target/release/build" -path '*/out/librocksdb.a' | head -n 1)
    [ -n "$built" ] || return 1
    # Renamed into place: whoever interrupts this leaves no half library behind.
    cp "$built" "$place/.librocksdb.a.$$" && mv "$place/.librocksdb.a.$$" "$library"
}

if [ ! -s "$library" ]; then
    mkdir -p "$place" 2>/dev/null || give_up "cannot make $place"
    [ -w "$place" ] || give_up "cannot write to $place"
    exec 9>"$cache/rocksdb/.lock"
    if command -v flock >/dev/null; then
        flock 9
        # Left by a build that was killed.
        rm -rf "$cache"/rocksdb/.build.*
    fi
    if [ ! -s "$library" ]; then
        say "rocksdb: building RocksDB once (13 minutes on 2 cores), kept in $place"
        rm -f "$place"/.librocksdb.a.*
        work=$(mktemp -d "$cache/rocksdb/.build.XXXXXX") || give_up "cannot make a directory in $cache"
        trap 'rm -rf "$work"' EXIT
        trap 'exit 130' INT TERM HUP
        build "$work" || give_up "it did not build"
    fi
fi
printf 'export ROCKSDB_LIB_DIR=%q\nexport ROCKSDB_STATIC=1\n' "$place"
