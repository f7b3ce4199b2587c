# SPDX-License-Identifier: Apache-2.0
# What a line of C says to a compiler: without comments, with empty literals. `in_comment` lasts
# from line to line; `comments` says whether there was one on this line.

function code_begin_file() {
    in_comment = comments = 0
}

function code_of(text,    out, at, opener) {
    out = ""
    comments = in_comment
    while (text != "") {
        if (in_comment) {
            at = index(text, "*/")
            if (at == 0)
                break
            text = substr(text, at + 2)
            in_comment = 0
        }
        if (!match(text, /["']|\/\*|\/\//)) {
            out = out text
            break
        }
        out = out substr(text, 1, RSTART - 1)
        opener = substr(text, RSTART, RLENGTH)
        text = substr(text, RSTART + RLENGTH)
        if (opener == "\"" || opener == "'") {
            out = out opener opener
            if (opener == "\"" ? match(text, /^(\\.|[^"\\])*"/) : match(text, /^(\\.|[^'\\])*'/))
                text = substr(text, RLENGTH + 1)
            else
                text = ""
        } else {
            comments = 1
            if (opener == "//")
                break
            in_comment = 1
        }
    }
    sub(/[ \t]+$/, "", out)
    return out
}

function count_of(text, pattern,    copy) {
    copy = text
    return gsub(pattern, "", copy)
}

function indent_of(text) {
    match(text, /^ */)
    return RLENGTH
}
