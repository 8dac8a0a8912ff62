#!/usr/bin/env bash
# slime with advantages that are right for groups of any size. Not run on GPUs by this project.
# The rest of the arguments are those of a run of yours, such as slime's scripts/run-qwen3-4B.sh.
# budgeteer has to be importable in every process: pip install budgeteer in slime's image, or put it on PYTHONPATH.
set -euo pipefail

python train.py \
  --advantage-estimator grpo \
  --n-samples-per-prompt 8 \
  --custom-reward-post-process-path budgeteer.adapters.slime.post_process_rewards \
  "$@"
