# shellcheck shell=bash
# What the scripts share. Sourced, never run.

# shellcheck disable=SC2034  # used where this is sourced
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Things that take long to make and are worth keeping between clones.
# shellcheck disable=SC2034
cache=${BATON_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/baton}

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

# Runs a step and says how long it took.
step() {
    local name=$1 start=$SECONDS status=0
    shift
    say "== $name"
    "$@" || status=$?
    local took=$((SECONDS - start)) outcome="done"
    if ((status != 0)); then outcome="FAILED ($status)"; fi
    say "== $name: $outcome after $((took / 60)) min $((took % 60)) s"
    return "$status"
}
