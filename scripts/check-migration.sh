#!/usr/bin/env bash
# Runs the commands of docs/guides/from-ev-node.md (the blocks marked `sh migration`) on this machine, in their order, against
# ev-node's own testapp, which $BATON_EVNODE names. $BATON_BIN is Baton, else what was built last; ports from $BASE_PORT (28600) on.
# A full node of ev-node follows from DA all the while and is never restarted.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# shellcheck source=scripts/guide.sh
. "$root/scripts/guide.sh"

testapp=${BATON_EVNODE:-}
[ -x "$testapp" ] || die "BATON_EVNODE does not name ev-node's testapp: docs/interop.md says how it is built"
testapp=$(realpath "$testapp")
base=${BASE_PORT:-28600}
begin_work
(umask 077; head -c 32 /dev/urandom | base64 >passphrase)
export DA=http://127.0.0.1:$base OLD=$work/old OLD_RPC=127.0.0.1:$((base + 1)) NEW_RPC=127.0.0.1:$((base + 3))
TLS=--raft.tls.insecure_loopback

rpc_of() { echo "127.0.0.1:$((base + ${1#node} * 10))"; }
cluster_of() { echo "127.0.0.1:$((base + ${1#node} * 10 + 1))"; }
NODE1_RPC=$(rpc_of node1)

stop() { # name
    kill "${running[$1]}"
    gone "$1" || true
}

da_of_ev_node=(--evnode.da.address "$DA" --evnode.da.namespace my-namespace --evnode.da.block_time 1s --evnode.da.batching_strategy immediate)
old=(start --home "$OLD" --evnode.node.aggregator --evnode.signer.passphrase_file "$work/passphrase" --evnode.rpc.address "$OLD_RPC"
    --evnode.p2p.listen_address "/ip4/127.0.0.1/tcp/$((base + 4))" --evnode.node.scrape_interval 100ms "${da_of_ev_node[@]}")

start_old() {
    run old "$testapp" "${old[@]}" --evnode.node.block_time 100ms --kv-endpoint "127.0.0.1:$((base + 2))"
    until_true "the old sequencer" answers "$OLD_RPC"
}

run_old_out() {
    run old "$testapp" "${old[@]}" --evnode.node.block_time 100ms --evnode.node.lazy_mode --evnode.node.lazy_block_interval 24h
    until_true "the old sequencer" answers "$OLD_RPC"
}

stop_old() { stop old; }

follow() {
    run follower baton start --home "$1" --rpc.address "$NEW_RPC" --kv.listen "" --p2p.listen_address "/ip4/127.0.0.1/tcp/$((base + 5))" --da.block_time 1s
    until_true "the follower" answers "$NEW_RPC"
    until_true "the follower to follow" is_level
}

is_level() { [ "$(height_of "$NEW_RPC" || echo 0)" -ge 30 ]; }

stop_follower() { stop follower; }

produce() {
    local number=${1#node}
    run "$1" baton start --home "$1" --rpc.address "$(rpc_of "$1")" --kv.listen "127.0.0.1:$((base + number * 10 + 2))" \
        --p2p.listen_address "/ip4/127.0.0.1/tcp/$((base + number * 10 + 3))" --node.block_time 100ms --da.block_time 1s \
        --signer.passphrase_file passphrase --raft.enable --raft.raft_addr "$(cluster_of "$1")" $TLS
    until_true "$1 to answer" answers "$(rpc_of "$1")"
}

height_of() {
    curl -sf -X POST -H 'content-type: application/json' -d '{}' "http://$1/evnode.v1.StoreService/GetState" |
        grep -o '"lastBlockHeight":"[0-9]*"' | grep -o '[0-9]*'
}

run da baton da --listen "${DA#http://}" --block-time 1s
"$testapp" init --home "$OLD" --evnode.node.aggregator --evnode.signer.passphrase_file passphrase >init.log 2>&1
start_old
for i in 1 2 3; do curl -sf -o /dev/null -d "before$i=$i" "http://127.0.0.1:$((base + 2))/tx"; done

# ev-node's full node, from DA.
FULL_RPC=127.0.0.1:$((base + 6))
"$testapp" init --home full >>init.log 2>&1
cp "$OLD/config/genesis.json" full/config/genesis.json
run full "$testapp" start --home full --evnode.rpc.address "$FULL_RPC" --evnode.p2p.listen_address "/ip4/127.0.0.1/tcp/$((base + 7))" \
    "${da_of_ev_node[@]}"

script=$(awk '/^```sh migration$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$root/docs/guides/from-ev-node.md")
[ "$(grep -c 'baton import' <<<"$script")" -ge 2 ] || die "the guide has no commands any more"
set -x
eval "$script"
set +x

goal=$(($(height_of "$NODE1_RPC") + 20))
reached() { [ "$(height_of "$1" || echo 0)" -ge "$goal" ]; }
until_true "the cluster to go on" reached "$NODE1_RPC"
until_true "ev-node's full node, which was never restarted" reached "$FULL_RPC"
block() { curl -sf -X POST -H 'content-type: application/json' -d "{\"height\":\"$2\"}" "http://$1/evnode.v1.StoreService/GetBlock" | grep -o '"signature":"[^"]*"'; }
# shellcheck disable=SC2154 # the guide sets it
for height in 1 "$last" "$((last + 1))" "$goal"; do
    [ "$(block "$NODE1_RPC" "$height")" = "$(block "$FULL_RPC" "$height")" ] || die "the blocks at height $height differ"
done
for name in node1 node2 node3; do stop "$name"; done
say "the guide's commands move the chain"
