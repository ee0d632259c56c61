#!/usr/bin/env bash
# Runs the fuzz targets of messages/ under libFuzzer, with the stable compiler: guided by coverage,
# with overflow checks and debug assertions, without sanitizers. Those need a nightly compiler, and
# what they would find needs unsafe code, of which messages/ has none.
#
# Each target runs for FUZZ_SECONDS, from the corpus in the repository. What it finds on the way is
# kept in target/fuzz; an input that breaks something is printed, and the script fails.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

seconds=${FUZZ_SECONDS:-60}
targets=(wire codec text exchange gossip)
fuzz=$root/messages/fuzz
out=${CARGO_TARGET_DIR:-$root/target}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"

# The versions that the node is built with.
[ -f "$fuzz/Cargo.lock" ] || cp "$root/Cargo.lock" "$fuzz/Cargo.lock"
RUSTFLAGS="--cfg fuzzing $(echo $coverage) -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks" \
    step "building the fuzz targets" \
    cargo build --manifest-path "$fuzz/Cargo.toml" --release --target "$host" --target-dir "$out"

status=0
for target in "${targets[@]}"; do
    mkdir -p "$out/corpus/$target" "$out/broken"
    step "$target for $seconds s" "$out/$host/release/$target" "$out/corpus/$target" "$fuzz/corpus/$target" \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$out/broken/$target-" || status=1
done
exit "$status"
