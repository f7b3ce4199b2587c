#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Kills a process that writes through to a disk tier N times (default 200), at random moments, and
# looks what is found afterwards. KVB_BUILD is the build folder (default build/dev), where the files
# go as well; KVB_SEED repeats the plans of an earlier run. The last line is the summary. Exit
# status: 0 good, 1 a loss or a wrong byte, 77 it cannot run here.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${KVB_BUILD:-$root/build/dev}
worker=$build/tests/crash_worker
if [ ! -x "$worker" ] && ! cmake --build "$build" --target crash_worker >&2; then
    echo "there is no crash_worker in $build, and it cannot be built:" \
        "set KVB_BUILD to a build folder with tests" >&2
    exit 77
fi
exec "$worker" "${1:-200}" "$build" ${KVB_SEED:+"$KVB_SEED"}
