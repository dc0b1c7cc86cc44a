#!/bin/sh
# Train on every image of a folder, several at a time, with nothing but a shell:
#
#   examples/xargs.sh IMAGES RUNS JOBS [train options]
#
# `gcn train --each IMAGES -o RUNS --jobs JOBS` does the same, ends with a table, and passes signals
# on to its trainings. A signal for this script reaches them only if its process group gets it.
set -u
images=$1 runs=$2 jobs=$3
shift 3
threads=$(($(nproc) / jobs))
find "$images" -maxdepth 1 -type f ! -name '.*' -print0 |
    xargs -0 -P "$jobs" -I{} sh -c '
        image=$1 runs=$2 threads=$3
        shift 3
        name=$(basename "$image")
        exec gcn train -o "$runs/${name%.*}" --threads "$threads" "$@" -- "$image"
    ' sh {} "$runs" "$((threads > 0 ? threads : 1))" "$@"
