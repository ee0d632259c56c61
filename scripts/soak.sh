#!/usr/bin/env bash
# Posts more than a node can take and looks at its memory: what is resident at the end is at most
# SOAK_PERCENT % of what it was at SOAK_BASE, and always below SOAK_CEILING MiB (docs/chaos.md).
#
# The node may put SOAK_BLOCK_BYTES into a block every 50 ms; twice that is posted, in
# transactions of SOAK_TX_BYTES.
# The run shows nothing unless the queue was full, so that is checked.
# The program is $BATON_BIN, or the release build.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

seconds=${SOAK_SECONDS:-600}
base=${SOAK_BASE:-60}
percent=${SOAK_PERCENT:-110}
ceiling=${SOAK_CEILING:-512}
block_bytes=${SOAK_BLOCK_BYTES:-200000}
tx_bytes=${SOAK_TX_BYTES:-2000}
queue_bytes=${SOAK_QUEUE_BYTES:-67108864}
port=${SOAK_PORT:-26000}
every=5
baton=${BATON_BIN:-${CARGO_TARGET_DIR:-$root/target}/release/baton}
[ -x "$baton" ] || die "there is no $baton: build it with \`cargo build --release -p baton\`, or name one in BATON_BIN"
((base >= 2 * every && seconds >= base + 2 * every)) || die "SOAK_BASE must be at least $((2 * every)), SOAK_SECONDS $((2 * every)) more"

work=$(mktemp -d)
devnet=
load=
# shellcheck disable=SC2317  # the trap calls it
finish() {
    for pid in $load $devnet; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap finish EXIT

rate=$((block_bytes * 20 * 2 / tx_bytes))
"$baton" devnet --json --home "$work/net" --base-port "$port" --block-time 50ms \
    -- --block.max_bytes "$block_bytes" --queue.max_bytes "$queue_bytes" --log.level warn >"$work/events" 2>"$work/devnet-log" &
devnet=$!
node=
for _ in {1..600}; do
    node=$(sed -n '/"role":"node"/s/.*"pid":\([0-9]*\).*/\1/p' "$work/events" | head -n 1)
    [ -z "$node" ] || break
    kill -0 "$devnet" 2>/dev/null || die "the devnet ended: $(cat "$work/devnet-log")"
    sleep 0.1
done
[ -n "$node" ] || die "the node does not listen after a minute"

"$baton" load --url "http://127.0.0.1:$((port + 11))" --rpc "http://127.0.0.1:$((port + 10))" --rate "$rate" \
    --connections 256 --size "$tx_bytes" --for "${seconds}s" --json >"$work/summary" 2>"$work/load-log" &
load=$!

resident() { awk '/^VmRSS:/ { print $2 }' "/proc/$node/status"; }
highest=0 at_base=0 at_end=0
printf '%8s %12s  %s\n' "second" "RSS KiB" "load"
for ((second = every; second <= seconds; second += every)); do
    sleep "$every"
    now=$(resident) || die "the node ended at second $second: $(tail -n 5 "$work/net/node1/log")"
    printf '%8d %12d  %s\n' "$second" "$now" "$(tail -n 1 "$work/load-log")"
    if ((now > highest)); then highest=$now; fi
    # The highest of two looks: one may fall between two blocks.
    if ((second > base - 2 * every && second <= base && now > at_base)); then at_base=$now; fi
    if ((second > seconds - 2 * every && now > at_end)); then at_end=$now; fi
done
wait "$load" || die "the load failed: $(tail -n 5 "$work/load-log")"
load=

number() { sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p" "$work/summary"; }
printf 'accepted/s %.0f, executed/s %.0f, blocks/s %.1f, refused as full %d, posted/s at most %d\n' \
    "$(number accepted_per_second)" "$(number executed_per_second)" "$(number blocks_per_second)" \
    "$(number back_pressure)" "$rate"
printf 'RSS at %d s %d KiB, at the end %d KiB (%d %%, limit %d %%), highest %d KiB (ceiling %d KiB)\n' \
    "$base" "$at_base" "$at_end" $((at_end * 100 / at_base)) "$percent" "$highest" $((ceiling * 1024))
status=0
if ((at_end * 100 > at_base * percent)); then say "FAILED: memory grows"; status=1; fi
if ((highest > ceiling * 1024)); then say "FAILED: memory is above the ceiling"; status=1; fi
if [ "$(number back_pressure)" -eq 0 ]; then say "FAILED: nothing was refused: this was no overload"; status=1; fi
exit "$status"
