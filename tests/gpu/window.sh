#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What is worth knowing from one short stay on a machine with a GPU that has no compiler, no
# packages and no network.
#
#   window.sh prepare BUILD FOLDER [gpu|stand-in]
#       packs the programs of a build, stripped, and the libraries they need. Which programs, their
#       arguments and limits say lists that CMake writes into the build folder (window.cmake). The
#       folder wants the same architecture there, and a glibc not older than FOLDER/needs.txt says.
#   window.sh FOLDER
#       runs all of it: what machine it is, the probe, tests, benches, compute-sanitizer where there
#       is one. Nothing stops the rest. Results in $OUT (FOLDER/out), at most eight files; the table
#       of summary.txt is also the last thing on stdout.
#       Exit: 0, 1 a step failed or skipped itself or a row misses its bar, 2 it could not run, 77
#       no GPU.
#
#   KVB_WINDOW_ONLY  an extended regular expression: only the steps whose names it matches
#
# A list has a line for each thing, its fields apart by |:
#   within|SECONDS|MEGABYTES              what all limits together, and the folder, may come to
#   gpu|PROGRAM|ARGUMENTS                 says whether there is a GPU: 0, or 77
#   beside|VARIABLE|PROGRAM               packed too; the variable says where it is
#   step|KIND|NAME|LIMIT|ESTIMATE|LOG|PROGRAM|ARGUMENTS
#       KIND: probe, test, bench (prints rows as JSON), sanitizer. LIMIT and ESTIMATE in seconds.
set -u
# Between the end of a limit and the kill of what does not end by itself.
grace=1
gpu_limit=20
facts_limit=15

refuse() {
    echo "window.sh: $*" >&2
    exit 2
}

# ---- Preparing -----------------------------------------------------------------------------------

is_elf() { [ "$(head -c 4 "$1" | tail -c 3)" = ELF ]; }

# The libraries of a program that a machine with nothing but a C library does not have.
libraries_of() {
    ldd "$1" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' |
        grep -vE '^(libc|libm|libdl|librt|libpthread|libresolv|ld-linux[^ ]*)\.so'
}

# The newest symbols of glibc that any of the files wants.
glibc_of() { objdump -T "$@" 2>/dev/null | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1; }

pack_program() {
    local from=$1 to=$2 name file
    [ -f "$from" ] || refuse "$from is not there: build it first"
    [ ! -e "$to/$(basename "$from")" ] || return 0
    if ! is_elf "$from"; then
        cp "$from" "$to/" || exit 2
        return
    fi
    strip -o "$to/$(basename "$from")" "$from" || exit 2
    while read -r name file; do
        [ -e "$to/$name" ] || strip -o "$to/$name" "$(readlink -f "$file")" || exit 2
    done < <(libraries_of "$from")
}

# The list with programs by their names alone.
write_steps() {
    awk -F'|' -v OFS='|' '
        function base(path) { sub(/.*\//, "", path); return path }
        $1 == "gpu" { $2 = base($2) }
        $1 == "beside" { $3 = base($3) }
        $1 == "step" { $7 = base($7) }
        { print }' "$1"
}

check_limits() {
    awk -F'|' -v grace="$grace" -v others="$((gpu_limit + facts_limit + 2 * grace))" '
        $1 == "within" { most = $2 }
        $1 == "step" { limits += $4 + grace; estimates += $5; n++ }
        END {
            limits += others
            printf "%d steps, about %d s; all limits together %d s of %d\n", n, estimates, limits,
                most
            exit limits > most
        }' "$1"
}

prepare() {
    [ $# -ge 2 ] || refuse "usage: window.sh prepare BUILD FOLDER [gpu|stand-in]"
    local folder=$2 list=$1/window-${3:-gpu}.list work program most size
    [ -f "$list" ] || refuse "$list is not there: configure with tests (and a toolkit for gpu)"
    mkdir -p "$folder" && work=$(mktemp -d) || exit 2
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    while read -r program; do
        pack_program "$program" "$work"
    done < <(awk -F'|' '$1 == "gpu" { print $2 } $1 == "beside" { print $3 }
                        $1 == "step" { print $7 }' "$list")
    check_limits "$list" || refuse "the limits come to more than a window has"
    write_steps "$list" >"$folder/steps"
    cp "$0" "$folder/window.sh" && tar -czf "$folder/programs.tar.gz" -C "$work" . || exit 2
    { echo "glibc: $(glibc_of "$work"/*) or newer, on $(uname -m)"
        echo 'built with:' # an optimised build is what benches measure
        sed -nE 's/^(CMAKE_BUILD_TYPE|CMAKE_C_FLAGS|KVB_SANITIZE):[A-Z]+=/  \1 /p' \
            "$1/CMakeCache.txt" 2>/dev/null; } | tee "$folder/needs.txt"
    most=$(awk -F'|' '$1 == "within" { print $3 }' "$list")
    size=$(cat "$folder/steps" "$folder/window.sh" "$folder/programs.tar.gz" | wc -c)
    echo "$(((size + 999999) / 1000000)) MB of $most"
    [ "$size" -le $((most * 1000000)) ] || refuse "the folder is larger than it may be"
}

# ---- Running -------------------------------------------------------------------------------------

print_facts() {
    local command
    for command in nvidia-smi 'nvidia-smi -q -d CLOCK,PCIE' 'nvidia-smi topo -m' 'uname -a' nproc \
        'free -g' 'ldd --version' 'cat /sys/kernel/mm/transparent_hugepage/enabled' \
        'cat /proc/self/cgroup' 'df -h .' lscpu; do
        printf '\n== %s\n' "$command"
        $command 2>&1 | head -n 80
    done
    printf '\n== locked memory: %s\n' "$(ulimit -l)"
}

# name, result, seconds
tell() { printf '%-36s %-10s %4d s\n' "$@" | tee -a "$summary"; }

# name, limit, log, command...: what became of it in `result`, what it printed in $output
run_step() {
    local name=$1 limit=$2 log=$3 since=$SECONDS status=0
    shift 3
    timeout -k "$grace" "$limit" "$@" >"$output" 2>&1 </dev/null || status=$?
    { printf '\n== %s: %s\n' "$name" "$*"; cat "$output"; } >>"$out/$log"
    took=$((SECONDS - since))
    case $status in
    0) result=ok ;;
    77) result=skipped ;;
    124 | 137) # a program may end with these by itself
        result="EXIT $status"
        [ "$took" -lt "$limit" ] || result='timed out' ;;
    *) result="EXIT $status" ;;
    esac
    # What skips itself where there is a GPU has not been tried.
    [ "$result" = ok ] || failed=1
    tell "$name" "$result" "$took"
}

# The rows of a bench that have a bar, beside the step that has measured them.
read_bars() {
    awk -v step="$1" '
        function field(key,    text) {
            if (!match($0, "\"" key "\": (\"[^\"]*\"|[^,}]*)"))
                return "null"
            text = substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 4)
            gsub(/"/, "", text)
            return text
        }
        /"name": / && field("bar") != "null" {
            measured = field("ratio") != "null" ? field("ratio") : field("value")
            verdict = field("ok") == "true" ? "met" : "MISSED"
            if (field("failed") == "true")
                verdict = "FAILED"
            printf "  %-20s %-30s %9s (bar %s) %s\n", step, field("name"), measured,
                field("bar"), verdict
        }' "$output" >>"$bars"
}

run() {
    local here=$1 sanitizer failed=0 began=$SECONDS result='' took=0 status=0
    local tag kind name limit log program arguments words
    out=${OUT:-$here/out}
    summary=$out/summary.txt
    [ -f "$here/steps" ] && [ -f "$here/programs.tar.gz" ] || refuse "$here is no prepared folder"
    mkdir -p "$out" "$here/programs" "$here/work" || exit 2
    rm -f "$out"/{machine,probe,tests,bench,methods,sanitizer,summary}.txt
    tar -xzf "$here/programs.tar.gz" -C "$here/programs" || exit 2
    output=$here/work/output bars=$here/work/bars
    : >"$bars"
    export LD_LIBRARY_PATH="$here/programs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    cd "$here/work" || exit 2

    IFS='|' read -r tag program arguments < <(grep '^gpu|' "$here/steps")
    read -ra words <<<"$arguments"
    timeout -k "$grace" "$gpu_limit" "$here/programs/$program" "${words[@]}" </dev/null || status=$?
    case $status in
    0) ;;
    77) echo 'window.sh: skipped: no GPU'; exit 77 ;;
    *) echo "window.sh: whether there is a GPU is not known ($program: EXIT $status)" ;;
    esac
    while IFS='|' read -r tag name program; do
        [ "$tag" != beside ] || export "$name=$here/programs/$program"
    done <"$here/steps"
    sanitizer=$(PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer)

    run_step machine "$facts_limit" machine.txt "$here/window.sh" facts
    while IFS='|' read -r tag kind name limit _ log program arguments; do
        [ "$tag" = step ] && grep -qE "${KVB_WINDOW_ONLY:-.}" <<<"$name" || continue
        read -ra words <<<"$arguments"
        words=("$here/programs/$program" "${words[@]}")
        if [ "$kind" = sanitizer ] && [ -z "$sanitizer" ]; then
            tell "$name" skipped 0
            continue
        fi
        [ "$kind" != sanitizer ] ||
            words=("$sanitizer" --tool memcheck --error-exitcode 9 "${words[@]}")
        run_step "$name" "$limit" "$log" "${words[@]}"
        [ "$kind" != bench ] || read_bars "$name"
    done <"$here/steps"

    { [ ! -s "$bars" ] || { echo 'bars:'; cat "$bars"; }
        echo "all: $((SECONDS - began)) s"; } >>"$summary"
    printf '\n'
    cat "$summary"
    rm -rf "$here/programs" "$here/work"
    exit "$failed"
}

case ${1:-} in
prepare) shift && prepare "$@" ;;
facts) print_facts ;;
'') refuse "usage: window.sh FOLDER | window.sh prepare BUILD FOLDER [gpu|stand-in]" ;;
*) here=$(cd "$1" && pwd) || exit 2
    run "$here" ;;
esac
