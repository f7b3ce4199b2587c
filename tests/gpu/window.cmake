# SPDX-License-Identifier: Apache-2.0
# What a window on a GPU has: lists for window.sh, which says how they look, in the build folder.
#   window-gpu.list        the programs on the CUDA runtime, where there is a toolkit
#   window-stand-in.list   the same steps with the programs on the stand-in, for the script's test
# Who builds a program adds it here; the lists are written once all of them are known.

function(kvb_window_line list kind line)
    set_property(GLOBAL APPEND PROPERTY kvb_window_${list}_${kind} "${line}\n")
endfunction()

# kind: probe, test, bench or sanitizer. `limit`, `estimate`: seconds. Behind them the arguments.
function(kvb_window_step list kind name limit estimate log target)
    list(JOIN ARGN " " arguments)
    kvb_window_line(${list} ${kind}
        "step|${kind}|${name}|${limit}|${estimate}|${log}|$<TARGET_FILE:${target}>|${arguments}")
endfunction()

function(kvb_window_write)
    foreach(list IN ITEMS gpu stand-in)
        set(text "")
        foreach(kind IN ITEMS head probe test bench sanitizer)
            get_property(lines GLOBAL PROPERTY kvb_window_${list}_${kind})
            string(APPEND text ${lines})
        endforeach()
        if(text)
            file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/window-${list}.list CONTENT "${text}")
        endif()
    endforeach()
endfunction()

# A run there may be cut at 600 s, and a folder of 20 MB travels anywhere.
if(KVB_CUDA_BUILT)
    kvb_window_line(gpu head "within|600|20")
endif()
# What ctest allows: how long it takes on a busy machine says nothing.
kvb_window_line(stand-in head "within|100000|40")
cmake_language(DEFER DIRECTORY ${PROJECT_SOURCE_DIR} CALL kvb_window_write)
