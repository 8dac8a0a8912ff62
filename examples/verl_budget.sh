#!/usr/bin/env bash
# GRPO in verl 0.9.1 on one machine with 8 GPUs, its rollouts split by an allocator within a budget of tokens.
# Not run on GPUs by this project: the loop, the registries and the configuration are tested on a CPU (make test-verl).
# MODEL, TRAIN and VAL are yours: a Hugging Face model, and parquet files as verl's data preparation makes them.
set -euo pipefail
: "${MODEL:=Qwen/Qwen2.5-3B-Instruct}" "${TRAIN:=$HOME/data/gsm8k/train.parquet}" "${VAL:=$HOME/data/gsm8k/test.parquet}"

# 256 prompts a step with 8 rollouts each are 2,048 rows; mini-batches of 32 prompts are 256 rows, so a step has 256, 512,
# ... 2,048 of them. Without budgeteer the run would sample about 100 * 2,048 responses; the budget is half of that at 300
# tokens a response.
python -m verl.trainer.main_ppo \
  algorithm.adv_estimator=budgeteer_grpo \
  +budgeteer.recipe="'grpo:allocator=neyman'" \
  +budgeteer.budget=30m \
  +actor_rollout_ref.rollout.agent.agent_loop_manager_class=budgeteer.adapters.verl.manager.BudgetedAgentLoopManager \
  trainer.checkpoint_callback_class=budgeteer.adapters.verl.manager.SaveNumbers \
  data.train_files="$TRAIN" data.val_files="$VAL" \
  data.train_batch_size=256 data.max_prompt_length=512 data.max_response_length=1024 \
  actor_rollout_ref.model.path="$MODEL" \
  actor_rollout_ref.actor.ppo_mini_batch_size=32 \
  actor_rollout_ref.actor.use_dynamic_bsz=true \
  actor_rollout_ref.actor.use_kl_loss=false \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
  trainer.n_gpus_per_node=8 trainer.nnodes=1 \
  trainer.total_epochs=15 trainer.total_training_steps=100 \
  trainer.save_freq=20 trainer.test_freq=10 \
  trainer.project_name=budgeteer trainer.experiment_name=neyman-30m \
  trainer.logger='["console"]' \
  "$@"
