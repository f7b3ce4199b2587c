#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Does window.sh do what it says? Without a GPU: window_itself.sh BUILD
#   - the programs on the stand-in, packed, moved elsewhere and run: the window's own code, whole
#   - steps made up for it: one that fails, one that hangs, one that is skipped, bars, no GPU
#   - what it refuses to pack
# Exit: 0, 1 it does not; 77 the build has no list of programs on the stand-in.
# shellcheck disable=SC2016 # what is in single quotes is for the programs that are made up
set -u
window=$(cd "$(dirname "$0")" && pwd)/window.sh
build=$(cd "$1" && pwd) || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
unset OUT KVB_WINDOW_ONLY KVB_REPLAY
said=$work/said
bad=0

wrong() {
    echo "WRONG: $*" >&2
    bad=1
}

# wanted exit status, command...: what it prints is in $said
expect() {
    local want=$1 status=0
    shift
    "$@" >"$said" 2>&1 || status=$?
    [ "$status" = "$want" ] || { wrong "exit $status, not $want: $*"; cat "$said" >&2; }
}

# What was said has a line like that.
says() { grep -qE -- "$1" "$said" || { wrong "nothing like '$1' in:"; cat "$said" >&2; }; }

# name, body: a program of a made-up build
make_program() { printf '#!/bin/sh\n%s\n' "$2" >"$made/$1" && chmod +x "$made/$1"; }

# lines: the list of a made-up build
make_list() { printf '%s\n' "$@" >"$made/window-gpu.list"; }

# ---- On the stand-in -----------------------------------------------------------------------------

[ -f "$build/window-stand-in.list" ] || { echo 'SKIPPED: no list in this build' >&2; exit 77; }
expect 0 "$window" prepare "$build" "$work/packed" stand-in
says '^glibc: GLIBC_2\.[0-9]+ or newer'
mkdir "$work/there" && mv "$work/packed" "$work/there/moved"
export KVB_WINDOW_ONLY='^(probe|cuda_suite_(onboard|lane_corners)|bench_quick)$'
expect 0 "$work/there/moved/window.sh" "$work/there/moved"
unset KVB_WINDOW_ONLY
for step in machine probe cuda_suite_onboard cuda_suite_lane_corners; do
    says "^$step +ok +[0-9]+ s$"
done
# Built without the benches there is no such step.
grep -q '|bench|' "$build/window-stand-in.list" && says '^bench_quick +ok +[0-9]+ s$'
grep -q cuda_suite_onboard_hops "$said" && wrong 'a step ran that was not asked for'
out=$work/there/moved/out
tail -n "$(wc -l <"$out/summary.txt")" "$said" | cmp -s - "$out/summary.txt" ||
    wrong 'the table is not the last that is printed'
[ "$(find "$out" -type f | wc -l)" -le 8 ] || wrong 'more than eight files'
grep -q '^probe 1: ' "$out/probe.txt" || wrong 'the answers of the probe are not in probe.txt'
# Every test on a GPU is one on the stand-in, too.
if [ -f "$build/window-gpu.list" ]; then
    names() { awk -F'|' '$2 == "test" { sub(/^(gpu|cuda)_/, "", $3); print $3 }' "$1" | sort; }
    names "$build/window-gpu.list" >"$work/gpu"
    names "$build/window-stand-in.list" >"$work/stand-in"
    alone=$(comm -23 "$work/gpu" "$work/stand-in")
    [ -s "$work/gpu" ] || wrong 'there is no test on a GPU'
    [ -z "$alone" ] || wrong "on a GPU, but not on the stand-in: $alone"
fi

# ---- Made up -------------------------------------------------------------------------------------

made=$work/made
mkdir "$made"
cp "$(type -P true)" "$made/elf"
make_program gpu 'exit 0'
make_program none 'echo "no GPU"; exit 77'
make_program good 'echo "$1 $2 $(basename "$KVB_REPLAY")"; [ -x "$KVB_REPLAY" ]'
make_program failing 'exit 3'
make_program hanging "trap '' TERM; for i in 1 2 3 4 5 6; do sleep 10; done; : >$work/survived"
make_program skipping 'exit 77'
make_program rows 'echo "{\"name\": \"quick\", \"value\": 1, \"unit\": \"x\", \"baseline\": 2,\
 \"ratio\": 0.98, \"bar\": 0.97, \"ok\": true, \"noise\": 0.1},"
echo "{\"name\": \"slow\", \"value\": 17, \"unit\": \"us\", \"baseline\": null, \"ratio\": null,\
 \"bar\": 15, \"ok\": false, \"noise\": 0.1},"
echo "{\"name\": \"wrong\", \"value\": 1, \"unit\": \"x\", \"baseline\": 2, \"ratio\": 0.98,\
 \"bar\": 0.97, \"ok\": false, \"failed\": true, \"noise\": 0.1},"
echo "{\"name\": \"free\", \"value\": 17, \"ratio\": null, \"bar\": null, \"ok\": true}"; exit 1'
steps=('within|600|20' "gpu|$made/gpu|" "beside|KVB_REPLAY|$made/elf"
    "step|test|elf|60|1|tests.txt|$made/elf|")

make_list "${steps[@]}" "step|test|before|60|1|tests.txt|$made/good|with arguments" \
    "step|test|failing|60|1|tests.txt|$made/failing|" \
    "step|test|hanging|1|1|tests.txt|$made/hanging|" \
    "step|test|skipping|60|1|tests.txt|$made/skipping|" \
    "step|bench|bench|60|1|bench.txt|$made/rows|" \
    "step|sanitizer|checked|60|1|sanitizer.txt|$made/good|" \
    "step|test|after|60|1|tests.txt|$made/good|"
expect 0 "$window" prepare "$made" "$work/all"
says '^8 steps, about 8 s; all limits together [0-9]+ s of 600$'
mkdir "$work/bin" "$work/results"
printf '#!/bin/sh\necho "sanitized: $*"\n' >"$work/bin/compute-sanitizer"
chmod +x "$work/bin/compute-sanitizer"
expect 1 env PATH="$work/bin:$PATH" OUT="$work/results" "$work/all/window.sh" "$work/all"
says '^before +ok '
says '^failing +EXIT 3 '
says '^hanging +timed out '
says '^skipping +skipped '
says '^bench +EXIT 1 '
says '^checked +ok '
says '^after +ok '
says '^ +bench +quick +0\.98 \(bar 0\.97\) met$'
says '^ +bench +slow +17 \(bar 15\) MISSED$'
says '^ +bench +wrong +0\.98 \(bar 0\.97\) FAILED$'
grep -q free "$said" && wrong 'a row without a bar is among the bars'
grep -q '^with arguments elf$' "$work/results/tests.txt" || wrong 'arguments or variables are lost'
grep -q '^sanitized: .*--error-exitcode 9 .*/good' "$work/results/sanitizer.txt" ||
    wrong 'compute-sanitizer was not asked'
[ ! -e "$work/survived" ] || wrong 'what hangs was not killed'
[ ! -e "$work/all/out" ] || wrong 'results are elsewhere than in $OUT'

while read -r program limit status; do # each alone
    make_list "${steps[@]}" "step|test|alone|$limit|1|tests.txt|$made/$program|"
    expect 0 "$window" prepare "$made" "$work/alone"
    expect "$status" "$work/alone/window.sh" "$work/alone"
done <<<'good 60 0
skipping 60 1
failing 60 1
hanging 1 1'
make_list "${steps[@]/$made\/gpu/$made/none}"
expect 0 "$window" prepare "$made" "$work/none"
expect 77 "$work/none/window.sh" "$work/none"
says 'skipped: no GPU'

# ---- Refused -------------------------------------------------------------------------------------

make_list "${steps[@]}" "step|test|absent|60|1|tests.txt|$made/absent|"
expect 2 "$window" prepare "$made" "$work/refused"
says 'absent is not there'
make_list "${steps[@]}" "step|test|long|570|1|tests.txt|$made/good|"
expect 2 "$window" prepare "$made" "$work/refused"
says 'the limits come to more'
make_list "${steps[@]/|20/|0}"
expect 2 "$window" prepare "$made" "$work/refused"
says 'the folder is larger'
expect 2 "$window" prepare "$made" "$work/refused" stand-in
says 'window-stand-in.list is not there'
mkdir "$work/empty"
expect 2 "$window" "$work/empty"
says 'no prepared folder'
exit $bad
