#!/usr/bin/env bash
# Runs the commands of docs/guides/cluster.md (the blocks marked `sh cluster`) on this machine, in their order: up to six nodes
# and a DA server on loopback ports from $BASE_PORT (28500) to 71 above it. $BATON_BIN is the program, else what was built last.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

program=${BATON_BIN:-$root/target/release/baton}
[ -x "$program" ] || { say "there is no program at $program: build it, or name one in BATON_BIN"; exit 1; }
base=${BASE_PORT:-28500}
work=$(mktemp -d)
declare -A running=()
da=
clean_up() {
    local status=$?
    kill "${running[@]}" $da 2>/dev/null || true
    wait 2>/dev/null || true
    if ((status != 0)); then
        say "failed; the ends of the logs:"
        tail -n 15 "$work"/*.log >&2 || true
    fi
    rm -rf "$work"
}
trap clean_up EXIT
mkdir "$work/bin"
ln -s "$(realpath "$program")" "$work/bin/baton"
export PATH=$work/bin:$PATH
export DA=http://127.0.0.1:$base NODE1=127.0.0.1:$((base + 11)) NODE2=127.0.0.1:$((base + 21)) NODE3=127.0.0.1:$((base + 31))
export NODE4=127.0.0.1:$((base + 41)) NODE5=127.0.0.1:$((base + 51)) NODE6=127.0.0.1:$((base + 61)) NODE7=127.0.0.1:$((base + 71))
cd "$work"

rpc_of() { echo "127.0.0.1:$((base + ${1#node} * 10))"; }

start_node() {
    local key=()
    if [ -e "$1/config/signer.json" ]; then key=(--signer.passphrase_file passphrase); fi
    baton start --home "$1" --rpc.address "$(rpc_of "$1")" --kv.listen "" --p2p.listen_address "" --node.block_time 100ms "${key[@]}" >>"$1.log" 2>&1 &
    running[$1]=$!
    until_true "$1 to answer" curl -sf -o /dev/null "http://$(rpc_of "$1")/health/live"
}

kill_node() {
    kill -KILL "${running[$1]}"
    wait "${running[$1]}" 2>/dev/null || true
    unset "running[$1]"
}

stop_node() {
    baton stop --home "$1"
    wait "${running[$1]}"
    unset "running[$1]"
}

until_true() { # what, command...
    local what=$1 i
    shift
    for ((i = 0; i < 600; i++)); do
        if "$@"; then return 0; fi
        sleep 0.1
    done
    say "waited a minute for $what"
    return 1
}

find_leader() {
    local node
    for node in "${!running[@]}"; do
        if curl -sf -o /dev/null "http://$(rpc_of "$node")/health/leader"; then
            echo "$node" >leads
            return 0
        fi
    done
    return 1
}

leader() {
    until_true "a leader" find_leader >&2
    cat leads
}

count() { grep -c "$1" <<<"$2" || true; } # pattern, text

# Every member runs, may produce or is a witness, and has every block or nearly.
all_are_well() {
    local status members well
    status=$(baton cluster status --home "$(leader)" --json) || return 1
    members=$(count '"told_ms_ago"' "$status")
    well=$(($(count '"eligible": true' "$status") + $(count '"witness": true' "$status")))
    ((members >= 3 && members == well && $(count '"lag": [0-3],' "$status") == members))
}

start_all() {
    baton da --listen "${DA#http://}" >da.log 2>&1 &
    da=$!
    local node
    for node in node1 node2 node3; do start_node "$node"; done
    until_true "three members that are well" all_are_well
}

# One block after the other; the nodes are started where the guide says so.
blocks() {
    awk '
        /^## 4\. Start/ { print "start_all" }
        /^```sh cluster$/ { inside = 1; next }
        /^```$/ { if (inside) print "until_settled"; inside = 0 }
        inside' "$root/docs/guides/cluster.md"
}

# Between two blocks an operator would look, too.
until_settled() {
    if ((${#running[@]} < 3)); then return; fi
    local members
    members=$(count '"told_ms_ago"' "$(baton cluster status --home "$(leader)" --json)")
    if ((${#running[@]} == members)); then until_true "members that are well" all_are_well; fi
}

script=$(blocks)
[ "$(grep -c '^until_settled$' <<<"$script")" -ge 10 ] || { say "the guide has no commands any more"; exit 1; }
set -x
eval "$script"
set +x
say "the guide's commands work"
