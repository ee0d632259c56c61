#!/usr/bin/env bash
# Builds the program `sim` and runs it: run, replay, shrink, mutations. `scripts/sim.sh help` lists them.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

profile=${SIM_PROFILE:-ci}
scripts/setup.sh >&2
# What the tests are built with: nothing is compiled twice. A release plants no bugs.
features=(--features failpoints)
[ "$profile" != release ] || features=()
scripts/cargo.sh build --locked --profile "$profile" "${features[@]}" --workspace --bin sim
exec "${CARGO_TARGET_DIR:-target}/$profile/sim" "$@"
