# SPDX-License-Identifier: Apache-2.0
# examples/quickstart.c stands in README.md and at the top of the header as well. Three copies, one
# text: this says which one has drifted. cmake -DROOT=<source directory> -P quickstart_copies.cmake
file(READ ${ROOT}/examples/quickstart.c program)
string(REGEX REPLACE "^/\\* SPDX[^\n]*\n" "" program "${program}")
string(STRIP "${program}" program)

file(READ ${ROOT}/README.md readme)
string(FIND "${readme}" "```c\n${program}\n```" found)
if(found EQUAL -1)
    message(FATAL_ERROR "README.md does not hold examples/quickstart.c as it is")
endif()

string(REPLACE "\n" "\n *     " indented " *     ${program}")
string(REGEX REPLACE " +\n" "\n" indented "${indented}")
file(READ ${ROOT}/include/kvblock.h header)
string(FIND "${header}" "${indented}\n" found)
if(found EQUAL -1)
    message(FATAL_ERROR "include/kvblock.h does not hold examples/quickstart.c as it is")
endif()

# The sink of the header's events section is the one that tests run.
file(READ ${ROOT}/tests/support/header_sink.h sink)
string(REGEX REPLACE "^/\\* SPDX[^\n]*\n" "" sink "${sink}")
string(STRIP "${sink}" sink)
string(REPLACE "\n" "\n *     " indented " *     ${sink}")
string(REGEX REPLACE " +\n" "\n" indented "${indented}")
string(FIND "${header}" "${indented}\n" found)
if(found EQUAL -1)
    message(FATAL_ERROR "include/kvblock.h does not hold tests/support/header_sink.h as it is")
endif()
