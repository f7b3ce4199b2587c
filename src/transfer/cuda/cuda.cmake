# SPDX-License-Identifier: Apache-2.0
# The GPU engine: whether it is built in, and with what. Reads KVB_CUDA; gives
#   KVB_CUDA_BUILT       ON or OFF
#   kvb_cuda_sources     what the library is made of besides the sources that every build has
#   kvb_cuda_objects     object files of the kernel, if there is a compiler for it
#   kvb_link_cuda(target), kvb_cuda_pc_libs
set(kvb_cuda_folder ${CMAKE_CURRENT_LIST_DIR})
set(KVB_CUDA_BUILT OFF)
set(kvb_cuda_objects "")
set(kvb_cuda_pc_libs "")
if(KVB_CUDA STREQUAL "ON")
    find_package(CUDAToolkit 12.0 REQUIRED)
elseif(KVB_CUDA STREQUAL "AUTO")
    find_package(CUDAToolkit 12.0 QUIET)
elseif(NOT KVB_CUDA STREQUAL "OFF")
    message(FATAL_ERROR "KVB_CUDA is '${KVB_CUDA}'; it may be AUTO, ON or OFF")
endif()
if(NOT KVB_CUDA STREQUAL "OFF" AND TARGET CUDA::cudart_static)
    set(KVB_CUDA_BUILT ON)
elseif(KVB_CUDA STREQUAL "ON")
    message(FATAL_ERROR
            "KVB_CUDA=ON needs libcudart_static.a, which this CUDA toolkit does not have")
endif()

file(GLOB kvb_cuda_engine_sources CONFIGURE_DEPENDS ${kvb_cuda_folder}/*.c)
list(REMOVE_ITEM kvb_cuda_engine_sources ${kvb_cuda_folder}/gather_none.c
     ${kvb_cuda_folder}/absent.c ${kvb_cuda_folder}/words_read.c)
set(kvb_cuda_absent_source ${kvb_cuda_folder}/absent.c ${kvb_cuda_folder}/check.c)

if(NOT KVB_CUDA_BUILT)
    message(STATUS "kvblock: without CUDA (KVB_CUDA=${KVB_CUDA}); KVB_MEMORY_CUDA will be refused")
    set(kvb_cuda_sources ${kvb_cuda_absent_source})
    function(kvb_link_cuda target)
    endfunction()
    return()
endif()

set(kvb_cuda_sources ${kvb_cuda_engine_sources} ${kvb_cuda_folder}/words_read.c)
# A command of its own instead of CMake's CUDA language: one file, flags that make it link from C,
# no second host compiler to check.
if(CUDAToolkit_NVCC_EXECUTABLE AND NOT KVB_SANITIZE)
    set(kvb_gather_architectures -arch=all-major)
    # Its all-major begins below 7.0, where no kernel has __grid_constant__.
    if(CUDAToolkit_VERSION VERSION_LESS 13)
        set(kvb_gather_architectures -gencode=arch=compute_70,code=sm_70
            -gencode=arch=compute_80,code=sm_80
                                     -gencode=arch=compute_90,code=[sm_90,compute_90])
    endif()
    set(kvb_gather_object ${PROJECT_BINARY_DIR}/gather.o)
    add_custom_command(
        OUTPUT ${kvb_gather_object}
        COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} -std=c++17 -O3 ${kvb_gather_architectures}
                -Xcompiler -fPIC,-fvisibility=hidden,-fno-exceptions,-fno-threadsafe-statics
                -I${PROJECT_SOURCE_DIR}/src -I${PROJECT_SOURCE_DIR}/include
                -c ${kvb_cuda_folder}/gather.cu -o ${kvb_gather_object}
        DEPENDS ${kvb_cuda_folder}/gather.cu ${kvb_cuda_folder}/gather.h
                ${kvb_cuda_folder}/gather_thread.h
        COMMENT "Compiling the gather kernel" VERBATIM)
    add_custom_target(kvb_gather DEPENDS ${kvb_gather_object})
    set(kvb_cuda_objects ${kvb_gather_object})
    set_source_files_properties(${kvb_gather_object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
else()
    list(APPEND kvb_cuda_sources ${kvb_cuda_folder}/gather_none.c)
endif()
message(STATUS "kvblock: with CUDA ${CUDAToolkit_VERSION}")

# The runtime is linked in and hidden: its state (pending errors, current device) is apart from that
# of the application's own.
function(kvb_link_cuda target)
    target_include_directories(${target} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
    get_target_property(type ${target} TYPE)
    if(NOT type STREQUAL "OBJECT_LIBRARY")
        target_link_libraries(${target} PRIVATE CUDA::cudart_static)
    endif()
    if(type STREQUAL "SHARED_LIBRARY")
        target_link_options(${target} PRIVATE -Wl,--exclude-libs,libcudart_static.a)
    endif()
    if(TARGET kvb_gather)
        add_dependencies(${target} kvb_gather)
    endif()
endfunction()
list(GET CUDAToolkit_LIBRARY_DIR 0 kvb_cuda_library_folder)
set(kvb_cuda_pc_libs " -L${kvb_cuda_library_folder} -lcudart_static -ldl -lrt")
