#!/usr/bin/env bash
# Data parallel (DDP) on one machine: all its GPUs, or NUM_PROCESSES of them.
#
#     examples/launch/torchrun.sh examples/train_dynamics.py --preset soar-small --data_dir D --tokenizer T --output_dir O
#
# Two processes on a CPU: ACCELERATE_USE_CPU=true NUM_PROCESSES=2 examples/launch/torchrun.sh ...
# Several machines without Slurm: the same line on each, with NUM_MACHINES and MASTER_ADDR (a name that all of them know).
set -euo pipefail
exec torchrun \
    --nnodes "${NUM_MACHINES:-1}" \
    --nproc_per_node "${NUM_PROCESSES:-gpu}" \
    --rdzv_backend c10d \
    --rdzv_endpoint "${MASTER_ADDR:-localhost}:${MASTER_PORT:-29500}" \
    "$@"
