#!/usr/bin/env bash
# Rolls three nodes under load from an older commit of this repository ($1) to what is checked
# out, back, and here again (docs/chaos.md). Builds the older one beside this, in $UPGRADE_DIR;
# the program of it is kept there by commit.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

commit=${1:?name an older commit}
place=${UPGRADE_DIR:-$root/target/upgrade}
flags=(--locked --profile ci --features failpoints)
commit=$(git rev-parse --verify --short=12 "$commit^{commit}") || die "there is no commit $commit"
old=$place-programs/baton-$commit
if [ ! -x "$old" ]; then
    git worktree prune
    [ -d "$place" ] || git worktree add --detach "$place" "$commit"
    git -C "$place" checkout --quiet --detach "$commit"
    # The older one's own target directory: the two would build over each other.
    CARGO_TARGET_DIR=$place/target step "the older version, $commit" \
        "$place/scripts/cargo.sh" build "${flags[@]}" --workspace --bins
    mkdir -p "$(dirname "$old")"
    cp "$place/target/ci/baton" "$old"
fi
version=$(git show "$commit:messages/src/command.rs" | sed -n 's/^pub const COMMAND_VERSION: u8 = \([0-9]*\);/\1/p')
step "this version" scripts/cargo.sh build "${flags[@]}" --workspace --bins
BATON_OLD=$old BATON_OLD_VERSION=$version step "the upgrade" scripts/cargo.sh test "${flags[@]}" --workspace \
    --test cluster_long -- --nocapture an_upgrade_rolls_through_and_back_under_load
