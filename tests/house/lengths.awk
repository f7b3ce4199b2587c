# SPDX-License-Identifier: Apache-2.0
# lengths: a file is read as a whole: 450 lines in src/, 600 for the tests of one thing.

function lengths_end_file(name, lines,    most) {
    most = name ~ /^src\/.*\.(c|h|cu)$/ ? 450 : name ~ /^tests\/.*\.c$/ ? 600 : 0
    if (most > 0 && lines > most)
        told_of(name, most + 1, "the file is longer than " most " lines")
}
