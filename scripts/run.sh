#!/usr/bin/env bash
# Builds a release and runs a devnet of $NODES nodes (3) with it until Ctrl-C, or for $FOR (such as 30s).
# $DEVNET_HOME is where the chain is kept, $DEVNET_FLAGS goes to `baton devnet` as it is.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

target=${CARGO_TARGET_DIR:-$root/target}
say "Three steps: tools (1 min where some are missing), RocksDB (13 min, once per machine), release build (10 min, the first time)."
step "tools" scripts/setup.sh
exports=$(step "RocksDB" scripts/rocksdb.sh)
eval "$exports"
step "release build" cargo build --release --locked --package baton
home=${DEVNET_HOME:-$target/devnet}
say "== devnet in $home; Ctrl-C stops it, the next run resumes the chain"
# shellcheck disable=SC2086  # flags are words
exec "$target/release/baton" devnet --nodes "${NODES:-3}" --home "$home" --sample ${FOR:+--for "$FOR"} ${DEVNET_FLAGS:-}
