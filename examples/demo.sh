#!/bin/sh
# What `make demo` runs: learn a texture, write seamless samples. Two minutes on two cores, after installing.
set -eu
cd "$(dirname "$0")/.."
gcn train examples/textures/volcanic_rock.png --preset quick -o runs/demo
gcn synthesize --model runs/demo --count 2
gcn synthesize --model runs/demo --size 512x512 --seed 1
gcn inspect --model runs/demo
echo "pictures: runs/demo/samples/ (seamless), training previews: runs/demo/previews/"
