#!/usr/bin/env bash
# Checks that every test named in docs/hazards.md exists. Tests are the `names in backticks` of
# each table's column whose heading has the word "test"; a name with a slash is a file.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

page=${1:-docs/hazards.md}
if [ ! -e "$page" ]; then
    say "check-hazards: there is no $page yet, nothing to check"
    exit 0
fi

names=$(awk -F '|' '
    !/^[[:space:]]*\|/ { column = 0; inside = 0; next }
    !inside {
        inside = 1
        for (i = 2; i < NF; i++) if (tolower($i) ~ /test/) column = i
        next
    }
    column {
        cell = $column
        while (match(cell, /`[^`]+`/)) {
            print substr(cell, RSTART + 1, RLENGTH - 2)
            cell = substr(cell, RSTART + RLENGTH)
        }
    }' "$page" | sort -u)
[ -n "$names" ] || die "$page names no test: is there a table with a column of tests?"

missing=0
while read -r name; do
    if [[ $name == */* ]]; then
        [ -e "$name" ] && continue
    else
        function=${name##*::}
        grep -rqE "\bfn ${function//[^A-Za-z0-9_]/}\b" --include='*.rs' messages storage actors node tests benches && continue
    fi
    say "check-hazards: $page names $name, which does not exist"
    missing=$((missing + 1))
done <<<"$names"
((missing == 0)) || die "$missing of the tests named in $page do not exist"
say "check-hazards: all $(wc -l <<<"$names") tests named in $page exist"
