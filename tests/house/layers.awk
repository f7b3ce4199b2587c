# SPDX-License-Identifier: Apache-2.0
# layers: includes point one way (docs/architecture.md).
# kinds: what a kind of memory is made of is known in its folder of src/transfer only; the others
# see the interfaces above the folders. One file names all kinds: src/transfer/kinds.c.

function layers_begin() {
    below["base"] = " base "
    below["block"] = " block base "
    below["transfer"] = " transfer block base "
    below["store"] = " store block base "
    below["offload"] = " offload store transfer block base "
    below["api"] = " api offload store transfer block base "
}

function layers_line(text,    target) {
    if (layer == "" || text !~ /^ *# *include "/)
        return
    target = text
    sub(/^[^"]*"/, "", target)
    if (target !~ /^[^"]*\//) {
        told("an include names its layer: \"LAYER/FILE.h\"")
        return
    }
    sub(/\/.*/, "", target)
    if (layer in below && index(below[layer], " " target " ") == 0)
        told(layer " may not know " target)
}

function layers_end(    name) {
    for (name in below)
        if (!(name in layers_files))
            told_of("src/" name, 1, "a layer without files")
}

function kinds_line(text,    target) {
    if (layer == "" || FILENAME == "src/transfer/kinds.c" || text !~ /^ *# *include "transfer\//)
        return
    target = text
    sub(/^[^"]*"transfer\//, "", target)
    if (target !~ /^[^"]*\//)
        return
    sub(/\/.*/, "", target)
    if (index(FILENAME, "src/transfer/" target "/") != 1)
        told("what is in src/transfer/" target " is known there and to src/transfer/kinds.c only")
}
