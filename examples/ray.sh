#!/bin/sh
# The runs of sweep.yaml on a Ray cluster, a GPU each:
#   RAY_ADDRESS=ray-head:6379 sh ray.sh FOLDER
# from any machine of the cluster, in the environment that its nodes have too (pip install 'grun-bench[ray]'). FOLDER is one
# that all nodes see. What was on a node that died is made on another one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
export GRUN_BENCH_CACHE="$folder/cache"

grun-bench sweep "$here/sweep.yaml" --output "$folder/results" --cluster ray --resource num_gpus=1 --resource num_cpus=4
grun-bench sweep "$here/sweep.yaml" --output "$folder/results" --status
