#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The model for as many operations as wanted: tests/model/run.sh OPERATIONS [SEED]. Build folder in
# KVB_BUILD; what known faults to steer round in KVB_MODEL_AVOID. One line and 0, or the first
# difference and 1.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${KVB_BUILD:-$root/build/dev}
[ $# -ge 1 ] || { echo "run.sh OPERATIONS [SEED]" >&2; exit 2; }
if [ -n "${KVB_MODEL_AVOID:-}" ]; then
    exec "$build/tests/model/model_short" --avoid "$KVB_MODEL_AVOID" "$@"
fi
exec "$build/tests/model/model_short" "$@"
