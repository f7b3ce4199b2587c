# SPDX-License-Identifier: Apache-2.0
# Installs the build into a prefix of its own and builds an outsider against it, from C and C++,
# with the shared and with the static library: by find_package, or by pkg-config. A line "SKIPPED:"
# tells ctest that something needed is not there, and what. cmake -DBUILD=<build directory>
# -DWORK=<a directory to fill> -DWAY=cmake|pkg-config -DCC=... -DCXX=... -DGENERATOR=...
#       -P installed.cmake
cmake_minimum_required(VERSION 3.25)

function(run)
    execute_process(COMMAND ${ARGV} RESULT_VARIABLE result OUTPUT_VARIABLE output
                    ERROR_VARIABLE output)
    string(JOIN " " command ${ARGV})
    if(NOT result EQUAL 0)
        message(FATAL_ERROR "${command}\n${output}\nended with ${result}")
    endif()
    set(output "${output}" PARENT_SCOPE)
endfunction()

function(skip why)
    message("SKIPPED: ${why}")
endfunction()

file(REMOVE_RECURSE ${WORK})
set(prefix ${WORK}/prefix)
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})

file(GLOB_RECURSE pc ${prefix}/kvblock.pc)
get_filename_component(pc_folder "${pc}" DIRECTORY)
get_filename_component(library_folder "${pc_folder}" DIRECTORY)
find_program(pkg_config NAMES pkg-config pkgconf)

if(WAY STREQUAL "cmake")
    run(${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR} -B ${WORK}/build -G ${GENERATOR}
        -DCMAKE_PREFIX_PATH=${prefix}
        -DCMAKE_C_COMPILER=${CC} -DCMAKE_CXX_COMPILER=${CXX})
    run(${CMAKE_COMMAND} --build ${WORK}/build)
    run(${CMAKE_CTEST_COMMAND} --test-dir ${WORK}/build --output-on-failure --no-tests=error)
    message("${output}")
    return()
endif()

if(NOT pkg_config)
    skip("there is no pkg-config")
    return()
endif()
set(ENV{PKG_CONFIG_PATH} "${pc_folder}:$ENV{PKG_CONFIG_PATH}")

# How the outsider asks, and what he adds to link with the archive although the shared library lies
# beside it.
function(build_and_run name compiler source)
    run(${pkg_config} --cflags --libs ${ARGN} kvblock)
    separate_arguments(flags UNIX_COMMAND "${output}")
    if("--static" IN_LIST ARGN)
        list(TRANSFORM flags REPLACE "^-lkvblock$" "-l:libkvblock.a")
    else()
        list(APPEND flags -Wl,-rpath,${library_folder})
    endif()
    run(${compiler} ${CMAKE_CURRENT_LIST_DIR}/${source} -o ${WORK}/${name} ${flags})
    run(${WORK}/${name})
    message("${name}: ${output}")
endfunction()

build_and_run(c_shared ${CC} main.c)
build_and_run(c_static ${CC} main.c --static)
build_and_run(cxx_shared ${CXX} main.cpp)
build_and_run(cxx_static ${CXX} main.cpp --static)

run(${pkg_config} --modversion kvblock)
string(STRIP "${output}" version)
run(${WORK}/c_static)
if(NOT output MATCHES "kvblock ${version}:")
    message(FATAL_ERROR "kvblock.pc says version ${version}, the library says: ${output}")
endif()
