# SPDX-License-Identifier: Apache-2.0
# braces: a function's brace is on a line of its own, all others are attached.

function braces_begin_file() {
    braces_before = ""
}

function braces_line(code) {
    if (directive || code ~ /^ *$/)
        return
    if (code == "{") {
        if (braces_before !~ /\)$/)
            told("only a function's brace is on a line of its own")
    } else if (code ~ /^\{/) {
        told("a brace is attached to what it belongs to")
    } else if (code ~ /^ *\{$/) {
        if (braces_before !~ /[;{}:,=(]$/)
            told("a brace is attached to what it belongs to")
    } else if (code ~ /\) *\{$/ && first_indent == 0 && first_text ~ /^[A-Za-z_]/) {
        told("a function's brace is on a line of its own")
    } else if (code ~ /^ *else/ && braces_before ~ /^ *\}$/ &&
               indent_of(code) == indent_of(braces_before)) {
        told("else is attached to the brace before it")
    }
    braces_before = code
}
