# SPDX-License-Identifier: Apache-2.0
# Leads the lines of all files through the rules of `rules`. A rule tells what it finds with told.

function told_of(name, line, words) {
    printf "%s:%d: %s: %s\n", name, line, rule, words
    found++
}

function told(words) {
    told_of(FILENAME, FNR, words)
}

# Whether the rule is on; what it tells from here on is told in its name.
function on(name) {
    rule = name
    return name in wanted
}

function begin_file(    parts) {
    kind = FILENAME ~ /\.(c|h|cu|cpp)$/ ? "code" : FILENAME ~ /\.md$/ ? "prose" : "build"
    header = FILENAME ~ /\.h$/
    layer = ""
    if (kind == "code" && FILENAME ~ /^src\/[^\/]*\//) {
        split(FILENAME, parts, "/")
        layer = parts[2]
        layers_files[layer] = 1
    }
    code_begin_file()
    statements_begin_file()
    columns_begin_file()
    locks_begin_file()
    braces_begin_file()
    single_begin_file()
    torn_begin_file()
}

function end_file() {
    if (on("lengths"))
        lengths_end_file(last_name, last_line)
}

BEGIN {
    split(rules, names, " ")
    known = " columns columns_build layers kinds locks lengths braces single heads torn "
    for (i in names) {
        if (index(known, " " names[i] " ") == 0) {
            print "house: no rule is called " names[i] "; there are:" known
            broken = 1
            exit 2
        }
        wanted[names[i]] = 1
    }
    layers_begin()
    torn_begin()
}

FNR == 1 {
    if (last_name != "")
        end_file()
    begin_file()
}

{
    last_name = FILENAME
    last_line = FNR
    if (on(kind == "build" ? "columns_build" : "columns"))
        columns_line($0, kind)
    if (on("heads"))
        heads_line($0, kind)
}

kind == "code" {
    code = code_of($0)
    statements_line(code)
    if (on("layers"))
        layers_line($0)
    if (on("kinds"))
        kinds_line($0)
    if (layer != "" && on("locks"))
        locks_line(code)
    if (on("braces"))
        braces_line(code)
    if (on("single"))
        single_line_of(code, $0)
    if (on("torn"))
        torn_line(code, $0)
}

END {
    if (broken)
        exit 2
    if (last_name != "")
        end_file()
    if (on("layers"))
        layers_end()
    exit found > 0
}
