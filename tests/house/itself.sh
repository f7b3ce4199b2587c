#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Whether the rules find what they are to find, and nothing else: cases/RULE.txt holds small files,
# good and bad. Exit status: 0 they do.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# Puts the files of a text of cases under a folder, and prints what a check has to tell of them.
lay_out() { # TEXT FOLDER
    sed -n 's,^== \([^ ]*\)/[^ /]* .*,\1,p' "$1" | sort -u | while read -r folder; do
        mkdir -p "$2/$folder"
    done
    awk -v folder="$2" '
        /^== / {
            if (name != "")
                close(folder "/" name)
            name = $2
            printf "" > (folder "/" name)
            line = 0
            next
        }
        name == "" { next }
        {
            count = 1
            if (sub(/^=repeat /, "")) {
                count = $1
                sub(/^[0-9]+ /, "")
            }
            if (sub(/^!/, ""))
                print name ":" line + 1
            line += count
            while (count-- > 0)
                print > (folder "/" name)
        }' "$1"
}

wrong() {
    echo "house_itself: $*" >&2
    failed=1
}

# One run: what is told and the exit status are as they should be.
expect() { # WHAT STATUS EXPECTED_TEXT FOLDER RULE
    status=0
    "$here/house.sh" "$4" "$5" >"$work/told" 2>&1 || status=$?
    grep -v ": $5: [a-z].* [a-z]" "$work/told" >"$work/odd" || true
    sed 's/^\([^:]*:[0-9]*\): .*/\1/' "$work/told" | sort -u >"$work/found"
    sort -u "$3" >"$work/expected"
    diff "$work/expected" "$work/found" >&2 || wrong "$1: < should have been told, > should not"
    [ ! -s "$work/odd" ] || wrong "$1: not in the form FILE:LINE: RULE: WORDS: $(cat "$work/odd")"
    [ "$status" = "$2" ] || wrong "$1: exit status $status, not $2"
}

rules=$("$here/house.sh" "$here/../.." none 2>&1 | sed -n 's/.*there are: //p')
[ -n "$rules" ] || wrong "the rules are not listed"
for rule in $rules; do
    text=$here/cases/$rule.txt
    if ! grep -q '^== [^ ]* good$' "$text" || ! grep -q '^== [^ ]* bad$' "$text"; then
        wrong "$rule: there is no good or no bad case"
        continue
    fi
    mkdir "$work/$rule"
    lay_out "$text" "$work/$rule" >"$work/all"
    expect "$rule" 1 "$work/all" "$work/$rule" "$rule"
    # And without the bad ones all is well.
    cut -d: -f1 "$work/all" | sort -u | while read -r name; do rm "$work/$rule/$name"; done
    : >"$work/none"
    expect "$rule, good cases alone" 0 "$work/none" "$work/$rule" "$rule"
done

# A layer that is gone is told, and a tree with nothing in it has not been checked.
rm -r "$work/layers/src/store"
echo src/store:1 >"$work/gone"
expect "layers, one gone" 1 "$work/gone" "$work/layers" layers
mkdir "$work/empty"
status=0
"$here/house.sh" "$work/empty" >/dev/null 2>&1 || status=$?
[ "$status" = 2 ] || wrong "no sources: exit status $status, not 2"
exit $failed
