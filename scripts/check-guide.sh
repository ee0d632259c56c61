#!/usr/bin/env bash
# Runs the commands of docs/guides/cluster.md (the blocks marked `sh cluster`) on this machine, in their order: up to six nodes
# and a DA server on loopback ports from $BASE_PORT (28500) to 71 above it. $BATON_BIN is the program, else what was built last.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# shellcheck source=scripts/guide.sh
. "$root/scripts/guide.sh"

begin_work
base=${BASE_PORT:-28500}
export DA=http://127.0.0.1:$base NODE1=127.0.0.1:$((base + 11)) NODE2=127.0.0.1:$((base + 21)) NODE3=127.0.0.1:$((base + 31))
export NODE4=127.0.0.1:$((base + 41)) NODE5=127.0.0.1:$((base + 51)) NODE6=127.0.0.1:$((base + 61)) NODE7=127.0.0.1:$((base + 71))

rpc_of() { echo "127.0.0.1:$((base + ${1#node} * 10))"; }

start_node() {
    local key=()
    if [ -e "$1/config/signer.json" ]; then key=(--signer.passphrase_file passphrase); fi
    run "$1" baton start --home "$1" --rpc.address "$(rpc_of "$1")" --kv.listen "" --p2p.listen_address "" --node.block_time 100ms "${key[@]}"
    until_true "$1 to answer" answers "$(rpc_of "$1")"
}

kill_node() {
    kill -KILL "${running[$1]}"
    gone "$1" || true
}

stop_node() {
    baton stop --home "$1"
    gone "$1"
}

nodes() { printf '%s\n' "${!running[@]}" | grep '^node' || true; }

find_leader() {
    local node
    for node in $(nodes); do
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
    run da baton da --listen "${DA#http://}"
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
    local members there
    there=$(nodes | wc -l)
    if ((there < 3)); then return; fi
    members=$(count '"told_ms_ago"' "$(baton cluster status --home "$(leader)" --json)")
    if ((there == members)); then until_true "members that are well" all_are_well; fi
}

script=$(blocks)
[ "$(grep -c '^until_settled$' <<<"$script")" -ge 10 ] || die "the guide has no commands any more"
set -x
eval "$script"
set +x
say "the guide's commands work"
