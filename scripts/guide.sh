# shellcheck shell=bash
# What the scripts share that run a guide's commands: a directory for the run with the program in PATH, processes by name that
# end with the script, patience. Sourced after lib.sh, never run.

declare -A running=()
work=

# Makes the directory and goes there. $BATON_BIN is the program, else what was built last.
begin_work() {
    local program=${BATON_BIN:-$root/target/release/baton}
    [ -x "$program" ] || die "there is no program at $program: build it, or name one in BATON_BIN"
    work=$(mktemp -d)
    trap clean_up EXIT
    mkdir "$work/bin"
    ln -s "$(realpath "$program")" "$work/bin/baton"
    export PATH=$work/bin:$PATH
    cd "$work" || exit 1
}

clean_up() {
    local status=$?
    kill "${running[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    if ((status != 0)); then
        say "failed; the ends of the logs:"
        tail -n 15 "$work"/*.log >&2 || true
    fi
    rm -rf "$work"
}

run() { # name, command...: in the background, with its output in name.log
    local name=$1
    shift
    "$@" >>"$name.log" 2>&1 &
    running[$name]=$!
}

# Waits until a process that was told to end has.
gone() { # name
    local status=0
    wait "${running[$1]}" 2>/dev/null || status=$?
    unset "running[$1]"
    return "$status"
}

until_true() { # what, command...
    local what=$1 i
    shift
    for ((i = 0; i < 1200; i++)); do
        if "$@"; then return 0; fi
        sleep 0.1
    done
    say "waited two minutes for $what"
    return 1
}

answers() { curl -s -o /dev/null "http://$1/health/live"; } # address
