"""What rewards read of rollouts beyond lengths and scores, out of verl's transfer queue.

verl computes the advantages of a batch by the keys of its rows and does not hand the keys on to estimators. The agent
loop managers here, which live in the trainer's process, note them (:func:`note_keys`), and a :class:`Reader` fetches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.column import column
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import I64
from budgeteer.core.steer import Internals
from budgeteer.engine.table import ANSWER, Marks, marked
from budgeteer.models.chat import tags_of
from budgeteer.models.inside import inside_of
from budgeteer.rl import texts
from budgeteer.rl.recipe import ENTROPY, OFFSETS, TEXT
from budgeteer.rl.reward.protocol import ALWAYS, Reward

KEYS: list[str] = []
"""Of the rows whose advantages are being computed, in their order; none outside of that."""
READERS: list[Reader] = []
"""That of the run in this process, if its manager is one of ours."""
Fetch = Callable[[Sequence[str], Sequence[str]], Mapping[str, Sequence[Any]]]
"""(keys, names of fields) -> field -> a value a key, for those fields that the rows have."""
MANAGER = "budgeteer.adapters.verl.manager.RewardingAgentLoopManager"
"""That lets rewards read more than lengths and scores, as verl's setting has it."""
GIVEN = "put it into a column of that name of the data set, or into its extra_info, one value a prompt"
"""Where a column comes from that verl's rows do not have."""
WHERE = {
    ENTROPY: "verl keeps it where it computes the log-probabilities of the old policy: leave the bypass mode of "
    "algorithm.rollout_correction",
    "effort": f"{GIVEN}, and say it in the prompt",
    "target": f"{GIVEN}, and say it in the prompt",
}
_MARKS = ("closed", "answered")
_ROWS = {"tokens", "sampled", ENTROPY, TEXT, OFFSETS, *_MARKS}
"""Columns that come from the tokens of the rows."""


class Noting:
    """verl's function that computes the advantages of a batch; the keys of the batch are in ``KEYS`` meanwhile.

    Args:
        compute: it, which takes the batch's data and ``batch_keys``.
    """

    def __init__(self, compute: Callable[..., Any]) -> None:
        self.compute = compute

    def __call__(self, data: Any, batch_keys: Sequence[str], *args: Any, **more: Any) -> Any:
        KEYS[:] = batch_keys
        try:
            return self.compute(data, batch_keys, *args, **more)
        finally:
            KEYS.clear()


def note_keys(trainer_base: Any) -> None:
    """Have verl's trainers tell the keys of a batch, once: a second call changes nothing.

    Args:
        trainer_base: ``verl.trainer.ppo.v1.trainer_base``.

    Raises:
        InvalidInput: another version of verl, which computes advantages otherwise.
    """
    name = "compute_advantage_for_multi_trajectories"
    compute = getattr(trainer_base, name, None)
    if compute is None:
        raise InvalidInput(f"this verl has no {trainer_base.__name__}.{name}; install verl 0.9")
    if not isinstance(compute, Noting):
        setattr(trainer_base, name, Noting(compute))


class Reader:
    """Columns of the rows of a batch.

    Args:
        fetch: from the transfer queue.
        tokenizer: makes the model's tokenizer, asked when a reward reads texts.
    """

    def __init__(self, fetch: Fetch, tokenizer: Callable[[], Any]) -> None:
        self._fetch, self._make = fetch, tokenizer
        self._tokenizer: Any = None
        self._inside: tuple[Internals, Marks] | None = None
        self.states: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}

    def state(self, name: str, reward: Reward) -> Any:
        """Of the reward of that name: as it was left, or its first one."""
        if name not in self.states:
            first = reward.init()
            self.states[name] = load_state(first, self._kept[name]) if name in self._kept else first
        return self.states[name]

    def state_dict(self) -> dict[str, Any]:
        """States of rewards by name, as JSON values."""
        return {**self._kept, **{name: dump_state(state) for name, state in self.states.items()}}

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave, before or after JSON."""
        self._kept, self.states = json.loads(json.dumps(content)), {}

    def columns(self, name: str, sources: Collection[str], keys: Sequence[str]) -> dict[str, Any]:
        """Those of the columns ``sources`` that rows or the data set have.

        Args:
            name: of the reward, for errors.
            sources: that it reads, or that what it reads is computed from.
            keys: [n] of the rows.

        Raises:
            InvalidInput: a column that neither has.
        """
        read = _ROWS & {*sources}  # tokens are fetched only where something is read of them
        fields = ["extra_info", *sources, *(["responses", "response_mask"] if read else [])]
        there = self._fetch(keys, [*fields, *(["raw_prompt"] if "prompt_key" in sources else [])])
        made = self._of_tokens({*sources}, there) if read else {}
        if "prompt_key" in sources:
            made["prompt_key"] = [text_of(messages) for messages in there["raw_prompt"]]
        extra = there.get("extra_info", [{}] * len(keys))
        for source in {*sources} - made.keys() - {*ALWAYS}:
            known = column(source, "rollouts")
            if known.written:
                continue  # computed, whatever a data set has under this name
            values = there.get(source, [(more or {}).get(source) for more in extra])
            if all(value is not None for value in values):
                made[source] = [str(value) if known.text else float(value) for value in values]
            elif known.make is None:
                raise InvalidInput(
                    f"the reward {name} reads the column {source!r} ({known.meaning}); {WHERE.get(source, GIVEN)}"
                )
        return made

    def _of_tokens(self, sources: set[str], there: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Those that are computed from the tokens that the policy sampled; other tokens of a response are not seen."""
        masks = [np.asarray(mask).astype(bool) for mask in there["response_mask"]]
        ids = [np.asarray(row)[mask].tolist() for row, mask in zip(there["responses"], masks, strict=True)]
        length = np.array([len(row) for row in ids], np.int64)
        width = int(length.max(initial=1))
        tokens = np.zeros((len(ids), width), np.int64)
        for own, row in zip(tokens, ids, strict=True):
            own[: len(row)] = row
        made: dict[str, Any] = {"tokens": tokens, "sampled": (np.arange(width) < length[:, None]) * 1}
        if ENTROPY in sources and ENTROPY in there:
            made[ENTROPY] = entropy = np.full(tokens.shape, np.nan)
            for own, values, mask in zip(entropy, there[ENTROPY], masks, strict=True):
                given = np.asarray(values, np.float64)[mask]
                own[: len(given)] = given
        if sources & {TEXT, OFFSETS, *_MARKS}:
            made |= self._written(sources, ids, tokens, length)
        return {name: values for name, values in made.items() if name in sources}

    def _written(self, sources: set[str], ids: list[list[int]], tokens: I64, length: I64) -> dict[str, Any]:
        """Texts of the rows, and where in them thinking and answer are complete."""
        if self._tokenizer is None:
            self._tokenizer = self._make()
        read: Any = self._tokenizer
        made: dict[str, Any] = {
            **texts.written(sources, partial(read.batch_decode, skip_special_tokens=True), ids, tokens.shape[1])
        }
        if sources & {*_MARKS}:
            if self._inside is None:
                tags = tags_of(str(read.chat_template or ""))
                close = tags.close if tags else ""
                self._inside = inside_of(read, len(read), [int(read.eos_token_id)], close, ANSWER)
            inside, marks = self._inside
            made |= dict(zip(_MARKS, marked(tokens, length, marks, inside.pieces), strict=True))
        return made


def text_of(messages: Any) -> str:
    """The messages of a prompt as one text, the same in every epoch."""
    plain = messages.tolist() if isinstance(messages, np.ndarray) else list(messages)
    return json.dumps(plain, sort_keys=True, default=str)
