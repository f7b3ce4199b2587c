# SPDX-License-Identifier: Apache-2.0
# columns: nothing is wider than 100 characters: code, comments, prose. In Markdown, what cannot be
# broken may be: code, tables, a link alone on its line. columns_build: the same of what builds.

function columns_begin_file() {
    fenced = 0
}

function columns_wide(text) {
    if (length(text) <= 100)
        return 0
    gsub(/[\200-\277]/, "", text) # all but the first byte of a character
    return length(text) > 100
}

# One word, or one link: nothing in front of it but what makes it an item or a quotation.
function columns_unbreakable(text) {
    if (text ~ /^ *\[[^]]*\]: /)
        return 1
    sub(/^ *(([-*+>]|[0-9]+[.)]) +)*/, "", text)
    sub(/!?\[[^]]*\]\([^) ]*\)/, "x", text)
    return text !~ / /
}

function columns_line(text, kind) {
    if (kind == "prose") {
        if (text ~ /^ *(```|~~~)/)
            fenced = !fenced
        else if (!fenced && text !~ /^ *\|/ && columns_wide(text) && !columns_unbreakable(text))
            told("wider than 100 columns")
    } else if (columns_wide(text)) {
        told("wider than 100 columns")
    }
}
