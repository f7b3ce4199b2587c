#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything on a GPU, in one command: configure, build, the whole quick suite with the tests on the
# device, then bench_gpu, which gets this script's arguments. Needs no network. Exit: 0, 77 where
# there is no GPU, another if anything failed or a row misses its bar.
#
#   KVB_DEPS   a folder into which the packages of liburing, xxHash and CMocka were unpacked
#              (docs/gpu.md); not set: they are installed
#   KVB_BUILD  the build folder (build/gpu)
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${KVB_BUILD:-build/gpu}
jobs=$(nproc)

say() { printf '\n== %s\n' "$*"; }

skip() {
    echo "tests/gpu/run.sh: skipped: $*" >&2
    exit 77
}

have_gpu() { [ -e /dev/nvidiactl ] || [ -e /dev/dxg ] || nvidia-smi -L >/dev/null 2>&1; }

# Compiler, linker, loader and pkg-config look there too, also in the projects that tests configure.
use_unpacked() {
    local folder=$1 machine prefix
    machine=$(${CC:-cc} -dumpmachine)
    for prefix in "$folder" "$folder/usr" "$folder/usr/local"; do
        export CPATH="$prefix/include${CPATH:+:$CPATH}"
        for lib in "$prefix/lib" "$prefix/lib64" "$prefix/lib/$machine" \
            "$prefix/lib/${machine/-pc-/-}"; do
            export LIBRARY_PATH="$lib${LIBRARY_PATH:+:$LIBRARY_PATH}"
            export LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
            export PKG_CONFIG_PATH="$lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
        done
    done
}

# The CPUs beside the GPU: elsewhere a machine of several sockets measures the way between them.
# Empty: not known.
cpus_near_gpu() {
    local bus
    bus=$(nvidia-smi --query-gpu=pci.bus_id --format=csv,noheader -i 0 2>/dev/null |
        tr '[:upper:]' '[:lower:]') || return 0
    cat "/sys/bus/pci/devices/${bus#0000}/local_cpulist" 2>/dev/null || true
}

have_gpu || skip "no GPU: there is no /dev/nvidiactl, and no nvidia-smi that lists one"

options=(-DCMAKE_BUILD_TYPE=RelWithDebInfo -DKVB_CUDA=ON
    -DKVB_BUILD_TESTS=ON -DKVB_BUILD_EXAMPLES=ON -DKVB_BUILD_BENCH=ON)
ninja --version >/dev/null 2>&1 && options+=(-G Ninja)
if [ -n "${KVB_DEPS:-}" ]; then
    deps=$(cd "$KVB_DEPS" && pwd)
    use_unpacked "$deps"
    # What pkg-config would say of them are the paths that they were not unpacked into.
    options+=(-DCMAKE_DISABLE_FIND_PACKAGE_PkgConfig=ON
        "-DCMAKE_PREFIX_PATH=$deps/usr;$deps/usr/local;$deps")
fi

say "configure and build in $build"
cmake -S . -B "$build" "${options[@]}"
cmake --build "$build" --parallel "$jobs"

say "is the GPU one that CUDA can use?"
status=0
"$build/tests/gpu/test_gpu_device" >/dev/null || status=$?
[ "$status" -ne 77 ] || skip "no GPU that CUDA can use"

say "tests"
ctest --test-dir "$build" --parallel "$jobs" --output-on-failure --no-tests=error |
    tee "$build/tests.log"
if grep -E ' (gpu_[a-z_]+|bench_gpu_quick) .*Skipped' "$build/tests.log"; then
    echo "tests/gpu/run.sh: tests of the GPU were skipped although there is one" >&2
    exit 1
fi

say "bench_gpu"
near=()
cpus=$(cpus_near_gpu)
if [ -n "$cpus" ] && taskset -c "$cpus" true 2>/dev/null; then
    near=(taskset -c "$cpus")
    echo "on CPUs $cpus"
fi
"${near[@]}" "$build/tests/bench/bench_gpu" "$@" | tee "$build/bench_gpu.log"
