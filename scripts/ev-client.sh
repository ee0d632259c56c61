#!/usr/bin/env bash
# Builds the probe around ev-node's Rust client (tests/ev-client) and prints where it is. Without an
# argument with the client on crates.io, with the directory of a checkout of ev-node with the one in it:
#
#     BATON_EV_CLIENT=$(scripts/ev-client.sh) BATON_EV_CLIENT_REPOSITORY=$(scripts/ev-client.sh ../ev-node) make test
#
# The probe is a workspace of its own. Built once, it is kept where there is a place for it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

target=$root/target/ev-client
if mkdir -p "$cache" 2>/dev/null && [ -w "$cache" ]; then target=$cache/ev-client; fi

if [ $# = 0 ]; then
    CARGO_TARGET_DIR=$target cargo build --quiet --locked --manifest-path tests/ev-client/Cargo.toml >&2 ||
        die "it does not build: are crates.io and rustc there?"
    echo "$target/debug/ev-client-probe"
    exit
fi

[ -e "$1/client/crates/client/Cargo.toml" ] || die "$1 is no checkout of ev-node"
source=$(cd "$1" && pwd)
# Its crates have the names and versions of those on crates.io: the lock file is another.
copy=$target/repository
mkdir -p "$copy"
cp -r tests/ev-client/Cargo.toml tests/ev-client/src "$copy"
patch=patch.crates-io
CARGO_TARGET_DIR=$copy/target cargo build --quiet --features repository --manifest-path "$copy/Cargo.toml" \
    --config "$patch.ev-client.path='$source/client/crates/client'" \
    --config "$patch.ev-types.path='$source/client/crates/types'" >&2 || die "it does not build"
echo "$copy/target/debug/ev-client-probe"
