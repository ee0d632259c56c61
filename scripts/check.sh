#!/usr/bin/env bash
# Every check that is not a test. Edits nothing. Goes on after a failure and names all that failed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

failed=()
check() { step "$@" || failed+=("$1"); }

scripts_check() {
    local files=(scripts/*.sh .ci/run) file
    for file in "${files[@]}"; do bash -n "$file" || return 1; done
    if command -v shellcheck >/dev/null; then
        shellcheck -x "${files[@]}"
    else
        say "note: shellcheck is not installed, the scripts were only parsed"
    fi
}

deny() {
    if ! command -v cargo-deny >/dev/null; then
        say "note: cargo-deny is not installed, licences and sources were not checked (deny.toml)"
        return 0
    fi
    cargo deny --locked --offline check bans licenses sources
}

docs() { RUSTDOCFLAGS="-D warnings" scripts/cargo.sh doc --locked --workspace --no-deps --profile ci --features failpoints; }

check "format" cargo fmt --all --check
check "clippy" scripts/cargo.sh clippy --locked --workspace --all-targets --profile ci --features failpoints -- -D warnings
check "docs" docs
check "licences and sources" deny
check "scripts" scripts_check
check "hazards" scripts/check-hazards.sh

if ((${#failed[@]} > 0)); then
    say "failed: ${failed[*]}"
    exit 1
fi
