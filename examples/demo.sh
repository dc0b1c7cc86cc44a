#!/bin/sh
# What `make demo` runs: train on a texture, write seamless samples. Two minutes on two cores.
set -eu
cd "$(dirname "$0")/.."
gcn train examples/textures/volcanic_rock.png --preset quick -o runs/demo
gcn synthesize --model runs/demo --count 2
gcn synthesize --model runs/demo --size 512x512 --seed 1
gcn inspect --model runs/demo
echo "seamless samples: runs/demo/samples/, previews of the training: runs/demo/previews/"
