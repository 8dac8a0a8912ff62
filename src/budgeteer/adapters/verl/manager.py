"""verl's agent loop manager with rewards that read rows, and with a number of rollouts for each prompt; their state."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.adapters.verl.estimators import WATCHERS
from budgeteer.adapters.verl.numbers import Numbers
from budgeteer.adapters.verl.rewarding import stateful
from budgeteer.adapters.verl.rows import READERS, Reader, note_keys, text_of
from budgeteer.adapters.verl.settings import refuse_forgetting, settings_of
from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.core.plan import CUT, ENDED
from budgeteer.rl.history import Std
from budgeteer.rl.identity import differences, digest, fingerprint
from budgeteer.rl.rows import advantages

try:
    import transfer_queue as tq
    from verl.trainer.ppo.checkpoint_callback import CheckpointCallback
    from verl.trainer.ppo.v1 import AgentLoopManagerTQ, trainer_base
    from verl.utils import omega_conf_to_dataclass
    from verl.utils import tensordict_utils as td
    from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path
except ImportError as error:
    raise ImportError(
        f"budgeteer.adapters.verl.manager needs verl 0.9 and TransferQueue ({error}); install verl as its pages say"
    ) from error

FILE = "budgeteer.json"
"""Name of the file in a checkpoint's folder."""
NUMBER = "__rollout_n__"
"""Field of a prompt from which verl takes its number of rollouts."""
logger = logging.getLogger(__name__)


class RewardingAgentLoopManager(AgentLoopManagerTQ):  # type: ignore[misc, unused-ignore]
    """``AgentLoopManagerTQ`` for ``algorithm.budgeteer_reward``: rewards that read tokens, texts, entropies and columns
    of the data set, and such that have a state.

    Args:
        args, kwargs: those of ``AgentLoopManagerTQ``.

    Raises:
        InvalidInput: another version of verl, or a state that checkpoints would not have.
        CheckpointError: the run resumes from a checkpoint without a state of this class, or of another run.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        note_keys(trainer_base)
        model = self.config["actor_rollout_ref"].get("model")
        self.reader = Reader(_fetched, lambda: omega_conf_to_dataclass(model).tokenizer)
        READERS[:], WATCHERS[:] = [self.reader], []  # a process trains one run
        self._begin()
        folder = resumed_from(self.config["trainer"]) if self._identity() else None
        if folder is not None:
            self.load(folder)

    def _begin(self) -> None:
        if stateful(self.config["algorithm"]):
            refuse_forgetting(self.config["trainer"])

    def _identity(self) -> dict[str, Any]:
        """Of a run whose checkpoints need a state of this class; nothing = they need none."""
        name = stateful(self.config["algorithm"])
        return {"reward": name} if name else {}

    def _state(self) -> dict[str, Any]:
        return {"rewards": self.reader.state_dict()}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.reader.load_state_dict(state.get("rewards", {}))

    def save(self, folder: str | Path) -> None:
        """Write the state into a checkpoint's folder, whole or not at all."""
        path = Path(folder) / FILE
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"identity": self._identity(), "state": self._state()}), "utf-8")
        os.replace(part, path)

    def load(self, folder: str | Path) -> None:
        """Go on from a checkpoint's folder.

        Raises:
            CheckpointError: it has no state, a damaged one, or one of another run.
        """
        path = Path(folder) / FILE
        try:
            content = json.loads(path.read_text("utf-8"))
            theirs, state = content["identity"], content["state"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"cannot read {path} ({error}); resume from a checkpoint that was written with "
                "trainer.checkpoint_callback_class=budgeteer.adapters.verl.manager.SaveNumbers, or set "
                "trainer.resume_mode=disable"
            ) from error
        if changed := differences(self._identity(), theirs):
            raise CheckpointError(f"{path} is of another run ({changed}); choose another folder, or delete it")
        self._restore(state)


class BudgetedAgentLoopManager(RewardingAgentLoopManager):
    """``AgentLoopManagerTQ`` whose training prompts get as many rollouts as an allocator of budgeteer says.

    Validation prompts are left as they are. What came of the rollouts is read from the transfer queue when verl
    computes advantages. Rewards are those of :class:`RewardingAgentLoopManager`.

    Args:
        args, kwargs: those of ``AgentLoopManagerTQ``; the configuration has settings under ``budgeteer``.

    Raises:
        InvalidInput: a setting that cannot be.
        CheckpointError: the run resumes from a checkpoint without a state of this class, or of another run.
    """

    def _begin(self) -> None:
        self.numbers = Numbers(settings_of(self.config))
        self._waiting: dict[str, str] = {}
        WATCHERS[:] = [self.collect]

    def generate_sequences(self, prompts: Any) -> None:
        """Write each training prompt's number of rollouts into the batch, and hand it to verl's workers."""
        if not td.get(prompts, "validate", False):
            if NUMBER in prompts:
                raise InvalidInput(f"the data set has a field {NUMBER}, which the allocator is to write; remove it")
            if self._waiting:
                logger.warning("no advantages were computed of the step before; nothing was learnt from it")
            keys = keys_of(td.get(prompts, "raw_prompt"))
            units = self.numbers.plan(keys)
            self._waiting = dict(zip(map(str, td.get(prompts, "uid")), keys, strict=True))
            td.assign_non_tensor_stack(prompts, NUMBER, units.tolist())
        super().generate_sequences(prompts)

    def collect(self) -> None:
        """Learn from the step's finished rollouts, while the transfer queue has them."""
        if not self._waiting:
            return
        recipe = self.numbers.settings.recipe
        tags: Mapping[str, Any] = tq.kv_list("train").get("train", {})
        turns: dict[tuple[str, str], list[str]] = {}
        for key in tags:
            uid, *where = key.rsplit("_", 2)
            if len(where) == 2 and uid in self._waiting:
                turns.setdefault((uid, where[0]), []).append(key)
        rows = [sorted(parts, key=lambda key: int(key.rsplit("_", 1)[1])) for parts in turns.values()]
        uids, self._waiting = [self._waiting[uid] for uid, _ in turns], {}
        if not rows:
            return
        fields = ["rm_scores", "response_mask"] + (["old_log_probs"] if recipe.memory.std == Std.SCORE else [])
        flat = [key for row in rows for key in row]
        data = tq.kv_batch_get(keys=flat, partition_id="train", select_fields=fields)
        mask = _sums(data["response_mask"])
        cuts = np.cumsum([len(row) for row in rows])
        tokens = np.array([part.sum() for part in np.split(mask, cuts[:-1])]).astype(np.int64)
        reward = _sums(data["rm_scores"])[cuts - 1]  # that of a session's last part, as verl takes it
        score = np.full(len(rows), np.nan)
        if recipe.memory.std == Std.SCORE:
            likely = [float((p * m).sum()) for p, m in zip(data["old_log_probs"], data["response_mask"], strict=True)]
            whole = np.array([part.sum() for part in np.split(np.array(likely), cuts[:-1])])
            score = advantages("grpo", reward, uids, length=tokens) * whole
        status = np.where(tokens >= self.numbers.settings.cap, CUT, ENDED).astype(np.int8)
        self.numbers.observe(uids, reward, tokens, score, status)
        spent = self.numbers.spent
        logger.info(
            "step %d: %d rollouts of %d prompts; so far %d tokens planned, %d used",
            spent.step, len(rows), len(set(uids)), spent.planned, spent.used,
        )  # fmt: skip

    def _identity(self) -> dict[str, Any]:
        s = self.numbers.settings
        return {
            "recipe": s.recipe.name,
            "parts of the recipe": fingerprint((s.recipe.allocator, s.recipe.memory)),
            "tokens": s.budget,
            "tokens of a step": s.step_budget,
            "rollouts of a prompt": s.group,
            "cap": s.cap,
            **super()._identity(),
        }

    def _state(self) -> dict[str, Any]:
        return {**self.numbers.state_dict(), **super()._state()}

    def _restore(self, state: Mapping[str, Any]) -> None:
        super()._restore(state)
        self.numbers.load_state_dict(state)


class SaveNumbers(CheckpointCallback):  # type: ignore[misc, unused-ignore]
    """Puts the state of a manager of this package into every checkpoint (``checkpoint_callback_class``)."""

    def on_save(
        self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **kwargs: Any
    ) -> None:
        """Write the state beside verl's own files."""
        trainer.agent_loop_manager.save(checkpoint_dir)


def keys_of(prompts: Any) -> list[str]:
    """Keys of prompts that last over epochs: fingerprints of their messages. A prompt that stands in the batch again
    has another key there."""
    seen: dict[str, int] = {}
    keys = []
    for messages in prompts:
        key = digest(text_of(messages).encode())
        times = seen[key] = seen.get(key, 0) + 1
        keys.append(key if times == 1 else f"{key} {times}")
    return keys


def _fetched(keys: Sequence[str], fields: Sequence[str]) -> dict[str, list[Any]]:
    """Those of the fields that the rows have in the transfer queue, a value a key."""
    data = tq.kv_batch_get(keys=list(keys), partition_id="train", select_fields=list(dict.fromkeys(fields)))
    found = {name: td.get(data, name) for name in data.keys()}  # noqa: SIM118 (a TensorDict iterates over its rows)
    return {name: list(values) for name, values in found.items()}


def _sums(column: Any) -> Any:
    """[n] sums of the rows of a column of tensors of any length."""
    return np.array([float(row.sum()) for row in column], np.float64)


def resumed_from(trainer: Any) -> Path | None:
    """The folder of the checkpoint that verl resumes from by this configuration, None = it starts afresh.

    Args:
        trainer: the part ``trainer`` of the configuration.
    """
    mode = trainer.get("resume_mode", "auto")
    if mode == "disable":
        return None
    if mode == "resume_path":
        return Path(str(trainer["resume_from_path"])).absolute()
    found = find_latest_ckpt_path(str(Path(str(trainer["default_local_dir"])).absolute()))
    return None if found is None else Path(found)
