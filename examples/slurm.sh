#!/bin/sh
# The runs of sweep.yaml as Slurm arrays, a GPU each:
#   sh slurm.sh FOLDER [PARTITION]
# from a login node, in the environment that the nodes have too (pip install 'grun-bench[slurm]'). FOLDER is one that all
# nodes see; results and the cache lie there. What is preempted or reaches its limit is queued again and goes on from its
# checkpoint; the same command goes on with what is not done, and tries again what failed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
partition=${2:-gpu}
export GRUN_BENCH_CACHE="$folder/cache"
# without the Hub on the nodes: GRUN_BENCH_HUB="$folder/hub", laid out as <org>/<name>

grun-bench sweep "$here/sweep.yaml" --output "$folder/results" --cluster slurm \
    --resource partition="$partition" --resource gres=gpu:1 --resource cpus_per_task=8 --resource time=240
# what is done, running, failed and waiting, why, and where each run's log is
grun-bench sweep "$here/sweep.yaml" --output "$folder/results" --status
