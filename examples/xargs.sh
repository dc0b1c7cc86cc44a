#!/bin/sh
# Train on every image of a folder, several at a time, with nothing but a shell:
#
#   examples/xargs.sh IMAGES RUNS JOBS [train options]
#
# `gcn train --each IMAGES -o RUNS --jobs JOBS` does the same and ends with a table.
set -u
images=$1 runs=$2 jobs=$3
shift 3
threads=$(($(nproc) / jobs))
find "$images" -maxdepth 1 -type f -print0 |
    xargs -0 -P "$jobs" -I{} sh -c '
        image=$1 runs=$2 threads=$3
        shift 3
        name=$(basename "${image%.*}")
        gcn train "$image" -o "$runs/$name" --threads "$threads" "$@"
    ' sh {} "$runs" "$((threads > 0 ? threads : 1))" "$@"
