# SPDX-License-Identifier: Apache-2.0
# single: no braces round a single statement, unless a comment stands above it, it has branches of
# its own, or another branch of the same condition needs them; then all branches have them.
#
# Told by the indentation, which the formatter makes. For each open brace of an if, else, for or
# while there is one place in the lists below, the innermost last; a chain of branches shares one.

function single_begin_file() {
    single_top = 0
}

# The brace of a branch, at the end of this line.
function single_open() {
    if (single_top == 0 || single_indent[single_top] != first_indent || first_text !~ /^ *\}/) {
        single_indent[++single_top] = first_indent
        single_needed[single_top] = single_count[single_top] = 0
        single_mixed[single_top] = first_text ~ /^ *else/ # after a branch without
    }
    single_line[single_top, ++single_count[single_top]] = first_line
    single_statements[single_top] = single_other[single_top] = 0
    single_nested[single_top] = 0
}

# The closing brace of a branch; `more`: another branch follows.
function single_close(more,    i) {
    if (single_statements[single_top] != 1 || single_other[single_top] ||
        single_nested[single_top] && more)
        single_needed[single_top] = 1
    if (more && single_top > 1)
        single_other[single_top - 1] = 1 # round a statement of several branches
    if (!more) {
        if (single_mixed[single_top])
            told_of(FILENAME, single_line[single_top, 1], "one branch has braces, another has none")
        else if (!single_needed[single_top])
            for (i = 1; i <= single_count[single_top]; i++)
                told_of(FILENAME, single_line[single_top, i], "braces round a single statement")
        single_top--
    }
}

function single_line_of(code, text,    indent) {
    if (directive || code ~ /^ *$/) {
        if (single_top > 0 && text !~ /^ *$/)
            single_other[single_top] = 1 # a comment, or a condition of the preprocessor
        return
    }
    indent = indent_of(code)
    if (single_top > 0 && code ~ /^ *\}/ && indent <= single_indent[single_top]) {
        while (single_top > 0 && indent < single_indent[single_top])
            single_top-- # what looked like a branch
        if (single_top > 0)
            single_close(code ~ /^ *\} else/)
        if (code ~ /^ *\} else$/)
            told("one branch has braces, another has none")
    } else if (single_top > 0 && begins && indent == single_indent[single_top] + 4) {
        single_statements[single_top]++
        if (code ~ /^ *(if|for|while) *\(/)
            single_nested[single_top] = 1
    }
    if (code ~ /\{$/ && depth == 0 &&
        first_text ~ /^ *(\} *)?((else +)?(if|for|while) *\(|else *\{)/)
        single_open()
}
