# SPDX-License-Identifier: Apache-2.0
# Where statements begin. For each line of code with something on it: `begins` says whether it is
# the first line of its statement, `first_line`, `first_indent` and `first_text` which line that is;
# `depth` counts the parentheses that are open after it. `directive`: it belongs to a directive of
# the preprocessor, a macro's body too.

function statements_begin_file() {
    depth = directive = directive_goes_on = 0
    ended = 1
    first_line = first_indent = 0
    first_text = ""
}

function statements_line(code) {
    directive = directive_goes_on || code ~ /^ *#/
    directive_goes_on = directive && code ~ /\\$/
    if (directive || code ~ /^ *$/)
        return
    begins = ended && depth <= 0
    if (begins) {
        depth = 0
        first_line = FNR
        first_indent = indent_of(code)
        first_text = code
    }
    depth += count_of(code, "[(]") - count_of(code, "[)]")
    # A list in braces is made of statements of its own, as is what a condition is about.
    ended = depth <= 0 &&
            (code ~ /[;{}:,]$/ || code ~ /^ *(\} *)?(else|do)$/ ||
             code ~ /\)$/ && first_text ~ /^ *(\} *)?(else +)?(if|for|while|switch) *\(/)
}
