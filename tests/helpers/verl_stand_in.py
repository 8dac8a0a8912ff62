"""A stand-in for the parts of verl 0.9.1 that the adapter touches: registries, transfer queue, manager, trainer loop.

The real ones are tested against in ``tests/verl_trainer`` (``make test-verl``); names, signatures and the order of
calls here are theirs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

Answer = tuple[int, float]
"""Tokens of a response and its reward."""


class Queue:
    """The key-value calls of TransferQueue: fields and a tag of each key, in partitions."""

    def __init__(self) -> None:
        self.partitions: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {}

    def put(self, partition: str, key: str, fields: Mapping[str, Any], tag: Mapping[str, Any]) -> None:
        """Fields and tag of one key are added to what is there."""
        before = self.partitions.setdefault(partition, {}).setdefault(key, ({}, {}))
        before[0].update(fields)
        before[1].update(tag)

    def kv_list(self, partition_id: str | None = None) -> dict[str, dict[str, Any]]:
        """Partition -> key -> tag."""
        some = self.partitions if partition_id is None else {partition_id: self.partitions.get(partition_id, {})}
        return {name: {key: tag for key, (_, tag) in rows.items()} for name, rows in some.items()}

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, list[Any]]:
        """Field -> its values, in the order of the keys; fields that no row has are left out without a word."""
        rows = self.partitions[partition_id]
        there = [name for name in select_fields if any(name in rows[key][0] for key in keys)]
        return {name: [rows[key][0][name] for key in keys] for name in there}

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        """Forget these keys."""
        for key in keys:
            self.partitions.get(partition_id, {}).pop(key, None)


def config(folder: Path, **budgeteer: Any) -> dict[str, Any]:
    """A configuration of verl: 8 prompts a step, 4 rollouts each, mini-batches of 4 prompts, 2 GPUs."""
    return {
        "algorithm": {"adv_estimator": "budgeteer_grpo", "filter_groups": {"enable": False}},
        "actor_rollout_ref": {
            "actor": {"ppo_mini_batch_size": 4, "optim": {"total_training_steps": 6}},
            "rollout": {"n": 4, "response_length": 100, "val_kwargs": {"n": 3}},
        },
        "data": {"train_batch_size": 8},
        "trainer": {
            "use_v1": True,
            "v1": {"trainer_mode": "sync", "sampler": {"sync_refill_failed_groups": False}},
            "n_gpus_per_node": 2,
            "nnodes": 1,
            "save_freq": 1,
            "checkpoint_callback_class": "budgeteer.adapters.verl.manager.SaveNumbers",
            "resume_mode": "auto",
            "default_local_dir": str(folder),
            "total_training_steps": None,
        },
        "budgeteer": budgeteer,
    }


class Trainer:
    """The loop of ``PPOTrainerSync`` around an agent loop manager, in the order of its calls.

    Args:
        settings: of :func:`config`.
        manager: class of the manager.
        queue: that everything goes through.
        answer: (prompt, session) -> what a rollout does.
    """

    def __init__(
        self, settings: dict[str, Any], manager: Any, queue: Queue, answer: Callable[[str, int], Answer]
    ) -> None:
        self.config, self.queue = settings, queue
        self.step, self.padded, self.groups = 0, 0, [[0]]
        self.agent_loop_manager = manager(config=settings, llm_client=None)
        self.agent_loop_manager.answer = answer

    def batch(self, prompts: list[str], **more: Any) -> dict[str, Any]:
        """Prompts as they come from the data loader."""
        uids = [f"uid{self.step}-{i}" for i in range(len(prompts))]
        messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
        return {"uid": uids, "raw_prompt": messages, **more}

    def validate(self, prompts: list[str]) -> list[int]:
        """Rollouts of each prompt in validation."""
        batch = self.batch(prompts, validate=True)
        self.agent_loop_manager.generate_sequences(batch)
        keys = list(self.queue.kv_list("val")["val"])
        counts = [sum(key.startswith(uid + "_") for key in keys) for uid in batch["uid"]]
        self.queue.kv_clear(keys, "val")
        return counts

    def train(self, prompts: list[str]) -> tuple[list[str], Tensor]:
        """One step: the rows' keys, padding included, and their advantages."""
        self.step += 1
        batch = self.batch(prompts)
        self.agent_loop_manager.generate_sequences(batch)
        keys = [key for key in self.queue.kv_list("train")["train"] if "_" in key]
        self.groups.append([sum(key.startswith(uid + "_") for key in keys) for uid in batch["uid"]])
        keys = self._padded(keys)
        rows = self.queue.kv_batch_get(keys, "train", ["uid", "rm_scores", "response_mask"])
        width = max(len(row) for row in rows["response_mask"])
        rewards, mask = (
            torch.stack([_wide(row, width) for row in rows[name]]) for name in ("rm_scores", "response_mask")
        )
        data = {"token_level_rewards": rewards, "response_mask": mask, "index": np.array(rows["uid"], object)}
        base = sys.modules["verl.trainer.ppo.v1.trainer_base"]
        value = base.compute_advantage_for_multi_trajectories(
            data, batch_keys=keys, adv_estimator=self.config["algorithm"]["adv_estimator"],
            config=self.config["algorithm"],
        )  # fmt: skip
        self.queue.kv_clear(keys, "train")
        self._save()
        return keys, value

    def _padded(self, keys: list[str]) -> list[str]:
        """With verl's rows of padding: a prompt of their own, no reward, nothing in the mask."""
        rollout = self.config["actor_rollout_ref"]["rollout"]
        multiple = self.config["actor_rollout_ref"]["actor"]["ppo_mini_batch_size"] * rollout["n"]
        self.padded = -len(keys) % multiple
        for i in range(self.padded):
            none = {"uid": "pad", "rm_scores": torch.zeros(1), "response_mask": torch.zeros(1)}
            self.queue.put("train", f"pad_{i}_0", none, {"is_padding": True})
        return [*keys, *[f"pad_{i}_0" for i in range(self.padded)]]

    def _save(self) -> None:
        name = self.config["trainer"]["checkpoint_callback_class"]
        if name is None:
            return
        module, _, attribute = name.rpartition(".")
        folder = Path(self.config["trainer"]["default_local_dir"]) / f"global_step_{self.step}"
        folder.mkdir(parents=True)
        (folder.parent / "latest_checkpointed_iteration.txt").write_text(str(self.step))
        callback = getattr(sys.modules[module], attribute)(config=self.config)
        callback.on_save(trainer=self, global_step=self.step, checkpoint_dir=str(folder), async_save=False)


def _wide(row: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(row.float(), (0, width - len(row)))


def _manager(queue: Queue) -> type:
    class AgentLoopManagerTQ:
        """Runs the sessions at once, where verl's workers run them in the background."""

        def __init__(self, config: dict[str, Any], llm_client: Any, **more: Any) -> None:
            self.config = config
            self.answer: Callable[[str, int], Answer] = lambda prompt, session: (1, 0.0)
            self.more: Callable[[Any, int, int], dict[str, Any]] = lambda messages, session, length: {}

        def generate_sequences(self, prompts: dict[str, Any]) -> None:
            """As ``AgentLoopWorkerTQ._run_prompt``: one key a rollout, ``{uid}_{session}_{part}``."""
            validate = prompts.get("validate", False)
            rollout, partition = self.config["actor_rollout_ref"]["rollout"], "val" if validate else "train"
            for i, uid in enumerate(prompts["uid"]):
                n = rollout["val_kwargs"]["n"] if validate else rollout["n"]
                if "__rollout_n__" in prompts:
                    n = prompts["__rollout_n__"][i]
                for session in range(n):
                    length, reward = self.answer(prompts["raw_prompt"][i][0]["content"], session)
                    scores = torch.zeros(length)
                    scores[-1] = reward
                    fields = {
                        "uid": uid, "rm_scores": scores, "response_mask": torch.ones(length),
                        "raw_prompt": prompts["raw_prompt"][i], **self.more(prompts["raw_prompt"][i], session, length),
                    }  # fmt: skip
                    queue.put(partition, f"{uid}_{session}_0", fields, {"status": "success"})

    return AgentLoopManagerTQ


def _compute(data: dict[str, Any], batch_keys: list[str], adv_estimator: str, config: Any) -> Tensor:
    """``compute_advantage_for_multi_trajectories`` of an estimator that is not verl's GRPO: it never sees the keys."""
    value, _ = sys.modules["verl.trainer.ppo.core_algos"].get_adv_estimator_fn(adv_estimator)(**data, config=config)
    return value  # type: ignore[no-any-return]


def _registries() -> dict[str, Any]:
    """As in ``core_algos``: an estimator is registered once, a loss is replaced."""
    estimators: dict[str, Any] = {}
    losses: dict[str, Any] = {}

    def register_adv_est(name: str) -> Callable[[Any], Any]:
        def decorator(function: Any) -> Any:
            if name in estimators and estimators[name] != function:
                raise ValueError(f"Adv estimator {name} has already been registered")
            estimators[name] = function
            return function

        return decorator

    def register_policy_loss(name: str) -> Callable[[Any], Any]:
        return lambda function: losses.setdefault(name, function)

    return {
        "ADV_ESTIMATOR_REGISTRY": estimators, "POLICY_LOSS_REGISTRY": losses, "register_adv_est": register_adv_est,
        "register_policy_loss": register_policy_loss, "get_adv_estimator_fn": estimators.__getitem__,
    }  # fmt: skip


def _assign(batch: dict[str, Any], key: str, values: list[Any]) -> None:
    batch[key] = values


def _latest(folder: str) -> str | None:
    tracker = Path(folder) / "latest_checkpointed_iteration.txt"
    return str(tracker.parent / f"global_step_{json.loads(tracker.read_text())}") if tracker.exists() else None


class _Callback:
    def __init__(self, config: Any = None) -> None:
        self.config = config


def install(patch: pytest.MonkeyPatch) -> Queue:
    """Put the stand-in where ``import verl`` finds it, until the test ends. The adapter is imported anew."""
    queue = Queue()
    content: dict[str, dict[str, Any]] = {
        "verl": {},
        "verl.trainer": {},
        "verl.trainer.ppo": {},
        "verl.trainer.ppo.core_algos": _registries(),
        "verl.trainer.ppo.checkpoint_callback": {"CheckpointCallback": _Callback},
        "verl.trainer.ppo.v1": {"AgentLoopManagerTQ": _manager(queue)},
        "verl.trainer.ppo.v1.trainer_base": {"compute_advantage_for_multi_trajectories": _compute},
        "verl.utils": {"omega_conf_to_dataclass": lambda config: config},
        "verl.utils.tensordict_utils": {"get": dict.get, "assign_non_tensor_stack": _assign},
        "verl.utils.checkpoint": {},
        "verl.utils.checkpoint.checkpoint_manager": {"find_latest_ckpt_path": _latest},
        "transfer_queue": {"kv_list": queue.kv_list, "kv_batch_get": queue.kv_batch_get},
    }
    for name in [name for name in sys.modules if name.startswith("budgeteer.adapters.verl")]:
        patch.delitem(sys.modules, name)
    for name, attributes in content.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        for attribute, value in attributes.items():
            setattr(module, attribute, value)
        patch.setitem(sys.modules, name, module)
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, module)
    return queue
