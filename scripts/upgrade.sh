#!/usr/bin/env bash
# Rolls three nodes under load from an older commit of this repository ($1) to what is checked
# out, back, and here again (docs/chaos.md). Builds the older one beside this, in $UPGRADE_DIR.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

commit=${1:?name an older commit}
place=${UPGRADE_DIR:-$root/target/upgrade}
flags=(--locked --profile ci --features failpoints)
[ -d "$place" ] || git worktree add --detach "$place" "$commit"
git -C "$place" checkout --quiet --detach "$commit"
step "the older version" "$place/scripts/cargo.sh" build "${flags[@]}" -p baton
old=${CARGO_TARGET_DIR:-$place/target}/ci/baton
cp "$old" "$place/old-baton"
step "this version" scripts/cargo.sh build "${flags[@]}" -p baton -p baton-sim
BATON_OLD=$place/old-baton step "the upgrade" scripts/cargo.sh test "${flags[@]}" -p baton -p baton-sim \
    --test cluster_long -- --nocapture an_upgrade_rolls_through_and_back_under_load
