#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The rules of the house that no compiler knows. Each line that breaks one is named, with the rule
# in words: house.sh SOURCE_DIRECTORY [RULE...]. Without names, the rules below. Exit status: 0 all
# are kept, 1 some are not, 2 it could not look.
#
# A rule is a file beside this one that says what it wants; house.awk leads the lines of all files
# through them. POSIX sh and awk only, and no git: a tarball on a fresh Debian has nothing else.
set -u
LC_ALL=C # bytes: awks differ in what they know of UTF-8
export LC_ALL
here=$(cd "$(dirname "$0")" && pwd) || exit 2
cd "$1" || exit 2
shift
rules=${*:-braces columns columns_build heads kinds layers lengths locks single torn}

files=$(find README.md CMakeLists.txt .ci docs include src tests examples \
    -name CMakeFiles -prune -o -type f \
    \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cpp' -o -name '*.md' -o -name '*.cmake' \
    -o -name CMakeLists.txt -o -name '*.sh' -o -name '*.awk' -o -path .ci/run \) \
    -print 2>/dev/null | sort)
[ -n "$files" ] || { echo "house: no sources in $PWD" >&2; exit 2; }

set -f # the names hold no spaces
# shellcheck disable=SC2086
awk -v "rules=$rules" -f "$here/code.awk" -f "$here/statements.awk" -f "$here/columns.awk" \
    -f "$here/layers.awk" -f "$here/locks.awk" -f "$here/lengths.awk" -f "$here/braces.awk" \
    -f "$here/single.awk" -f "$here/heads.awk" -f "$here/torn.awk" -f "$here/house.awk" $files
