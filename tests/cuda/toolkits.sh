#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Does the engine compile against the headers of these CUDA toolkits? Nothing is linked or run.
#   toolkits.sh COMPILER SOURCE_DIRECTORY [FOLDER...]
# Each folder is one toolkit's include folder, with crt/ in it: another toolkit's would be found
# elsewhere. Exit: 0, 1 it does not, 2 a folder is none, 77 there is no folder.
set -u
compiler=$1 source=$2
shift 2
[ $# -gt 0 ] || { echo 'skipped: no headers of a CUDA toolkit (KVB_CUDA_HEADERS)'; exit 77; }
bad=0
for folder in "$@"; do
    for header in cuda_runtime_api.h crt/host_defines.h; do
        [ -f "$folder/$header" ] || { echo "$folder has no $header" >&2; exit 2; }
    done
    version=$(sed -nE 's/^#define CUDART_VERSION +([0-9]+).*/\1/p' "$folder/cuda_runtime_api.h")
    [ -n "$version" ] || { echo "$folder: no CUDART_VERSION" >&2; exit 2; }
    said=compile
    for file in "$source"/src/transfer/cuda/*.c; do
        "$compiler" -std=c11 -D_GNU_SOURCE -fsyntax-only -Wall -Wextra -Wconversion -Wshadow \
            -Wmissing-prototypes -Wstrict-prototypes -Werror -isystem "$folder" \
            -I"$source/src" -I"$source/include" "$file" || said='DO NOT COMPILE'
    done
    [ "$said" = compile ] || bad=1
    echo "headers of $((version / 1000)).$((version % 1000 / 10)) $said"
done
exit $bad
