#!/bin/sh
# Every picture of a folder, several at a time, with nothing but a shell:
#
#   examples/xargs.sh PICTURES RUNS JOBS [train options]
#
# `gcn train --each PICTURES -o RUNS --jobs JOBS` does the same and ends with a table.
set -u
pictures=$1 runs=$2 jobs=$3
shift 3
threads=$(($(nproc) / jobs))
find "$pictures" -maxdepth 1 -type f -print0 |
    xargs -0 -P "$jobs" -I{} sh -c '
        picture=$1 runs=$2 threads=$3
        shift 3
        name=$(basename "${picture%.*}")
        gcn train "$picture" -o "$runs/$name" --threads "$threads" "$@"
    ' sh {} "$runs" "$((threads > 0 ? threads : 1))" "$@"
