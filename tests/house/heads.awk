# SPDX-License-Identifier: Apache-2.0
# heads: a source names its license first; a header of src/ then says what it is.

function heads_line(text, kind,    first) {
    first = FNR == 1 || FNR == 2 && heads_interpreter
    if (FNR == 1)
        heads_interpreter = text ~ /^#!/
    if (kind == "prose" || heads_interpreter && FNR == 1)
        return
    if (first && text !~ /^(\/\*|\/\/|#) SPDX-License-Identifier: Apache-2\.0( \*\/)?$/)
        told("a source begins with its SPDX-License-Identifier")
    if (FNR == 2 && FILENAME ~ /^src\/.*\.h$/ && text !~ /^\/\*/)
        told("a header of src/ says behind its license what it is")
}
