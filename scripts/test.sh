#!/usr/bin/env bash
# Installs what is missing, builds everything with the `ci` profile and runs every test.
#
# A test that cannot run here appends one line to the file named by $BATON_SKIPS:
#     BATON-SKIP <check> <capability> <reason>
# Skips and ignored tests are listed at the end. One that tests/allowed-skips.txt does not name,
# or whose capability this machine has, fails the run. The last line is `N passed, N failed, N skipped`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

allowed=tests/allowed-skips.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export BATON_SKIPS=$work/skips
: >"$BATON_SKIPS"
log=$work/log

step "tools" scripts/setup.sh
exports=$(step "RocksDB" scripts/rocksdb.sh)
eval "$exports"

flags=(--locked --workspace --profile ci --features failpoints)
status=0
step "build tests" cargo test "${flags[@]}" --no-run || {
    echo "the tests do not build"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}
# Where crates.io cannot be reached the test of it is skipped.
if [ -z "${BATON_EV_CLIENT:-}" ] && client=$(step "ev-node's Rust client" scripts/ev-client.sh); then
    export BATON_EV_CLIENT=$client
fi
run_tests() { cargo test "${flags[@]}" --no-fail-fast "$@" 2>&1 | tee "$log"; }
step "run tests" run_tests "$@" || status=$?

# Does this machine have what a test said it lacks? An unknown capability is never an excuse.
has_capability() {
    case $1 in
        root) [ "$(id -u)" = 0 ] ;;
        # What sim::process::Apart asks for.
        network-namespaces) unshare --net --mount sh -c 'ip link add v0 type veth peer name v1 && ip link add b0 type bridge && mount -t tmpfs none /mnt' 2>/dev/null ;;
        mount) unshare --mount mount -t tmpfs none /mnt 2>/dev/null || unshare --user --map-root-user --mount mount -t tmpfs none /mnt 2>/dev/null ;;
        go) command -v go >/dev/null ;;
        ev-node) [ -x "${BATON_EVNODE:-}" ] ;;
        ev-client) [ -x "${BATON_EV_CLIENT:-}" ] ;;
        ev-client-repository) [ -x "${BATON_EV_CLIENT_REPOSITORY:-}" ] ;;
        ev-stress) [ -x "${BATON_EV_STRESS:-}" ] ;;
        by-hand) false ;;
        *) true ;;
    esac
}

is_allowed() { # capability, check
    awk -v capability="$1" -v check="$2" '
        /^[[:space:]]*(#|$)/ { next }
        $1 == capability ":" { for (i = 2; i <= NF; i++) if ($i == check) found = 1 }
        END { exit !found }' "$allowed"
}

# Ignored tests are skipped checks that take a person to run: capability by-hand.
sed -n 's/^test \(.*\) \.\.\. ignored.*/\1/p' "$log" | sed 's/ - .*//' |
    while read -r check; do echo "BATON-SKIP $check by-hand run with --ignored"; done >>"$BATON_SKIPS"
sort -u "$BATON_SKIPS" -o "$BATON_SKIPS"

refused=0
echo
echo "Checks by test binary:"
awk '
    /^ +Running / { name = $NF; gsub(/.*\/|-[0-9a-f]+\)$/, "", name); name = name " (" $(NF - 1) ")" }
    /^ +Doc-tests / { name = "doc tests of " $2 }
    /^test result: / { printf "  %-60s %5d passed %5d failed\n", name, $4, $6 }' "$log"
if [ -s "$BATON_SKIPS" ]; then
    echo "Skipped:"
    while read -r _ check capability reason; do
        verdict="allowed"
        if ! is_allowed "$capability" "$check"; then
            verdict="NOT ALLOWED: $allowed does not name it"
        elif has_capability "$capability"; then
            verdict="NOT ALLOWED: this machine has $capability"
        fi
        [ "$verdict" = allowed ] || refused=$((refused + 1))
        printf '  %-50s lacks %-20s %s (%s)\n' "$check" "$capability" "$reason" "$verdict"
    done <"$BATON_SKIPS"
else
    echo "Skipped: nothing."
fi

read -r passed failed <<<"$(awk '/^test result: / { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$log")"
# A test binary that crashed reports no result of its own.
if ((status != 0 && failed == 0)); then
    echo "cargo test failed without naming a test: see above"
    failed=1
fi
# A test that skips returns early, and cargo counts it as passed.
early=$(awk '$3 != "by-hand"' "$BATON_SKIPS" | awk '{ print $2 }' | sort -u | wc -l)
skipped=$(awk '{ print $2 }' "$BATON_SKIPS" | sort -u | wc -l)
passed=$((passed > early ? passed - early : 0))
if ((passed == 0)); then
    echo "no test ran"
    status=1
fi
if ((refused > 0)); then echo "$refused skip(s) are not allowed"; fi
echo "$passed passed, $((failed + refused)) failed, $skipped skipped"
((status == 0 && failed == 0 && refused == 0))
