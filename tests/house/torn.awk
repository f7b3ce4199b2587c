# SPDX-License-Identifier: Apache-2.0
# torn: no line is broken only because a comment stands behind it. The formatter counts the comment
# to the line: what would fit without it comes apart, a type on one line and its name on the next.
# Such a comment belongs on a line of its own, above.

function torn_begin() {
    torn_bare = "^ *((static|extern|const|volatile|unsigned|signed|_Atomic|_Thread_local) )*" \
                "((struct|union|enum) [a-z_0-9]+|[a-z_0-9]+_t|bool|char|short|int|long|float|" \
                "double|void)( const)?( [*]+(const)?)?$"
}

function torn_begin_file() {
    torn_lines = 0
    torn_before = torn_macro = ""
}

function torn_width(a, b) {
    sub(/^ +/, "", b)
    return a (a ~ /[(*[]$/ || b ~ /^[[)]/ ? "" : " ") b
}

function torn_line(code, text) {
    if (directive) {
        if (torn_macro != "" && comments && code !~ /\\$/ &&
            length(torn_width(torn_macro, code)) <= 100)
            told_of(FILENAME, FNR - 1, "torn apart by the comment behind it, which belongs above")
        torn_macro = ""
        if (code ~ /^ *#define [A-Za-z_0-9]+ *\\$/) {
            torn_macro = code
            sub(/ *\\$/, "", torn_macro)
        }
    }
    if (directive || code ~ /^ *$/) {
        if (torn_lines > 0 && text !~ /^ *$/)
            torn_apart = 1 # a comment or a directive in between has its reasons
        return
    }
    if (begins) {
        torn_lines = 0
        torn_apart = 0
        torn_text = code
    } else {
        torn_text = torn_width(torn_text, code)
        if (code ~ /^ *"/ && torn_before ~ /"$/)
            torn_apart = 1 # pieces of one string
    }
    torn_lines++
    if (!begins && torn_lines == 2 && torn_before ~ torn_bare && code ~ /^ *[*]*[a-z_]/)
        told_of(FILENAME, FNR - 1, "a type without its name: the comment behind it belongs above")
    else if (!begins && depth == 0 && ended && comments && !torn_apart && code ~ /[;,{]$/ &&
             length(torn_text) <= 100)
        told_of(FILENAME, first_line, "torn apart by the comment behind it, which belongs above")
    if (comments)
        torn_apart = 1
    torn_before = code
}
