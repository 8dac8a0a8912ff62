"""The rewards of this package as reward functions for TRL's own GRPOTrainer."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from accelerate import PartialState

from budgeteer import verify
from budgeteer.adapters.trl.refusals import refuse_texts
from budgeteer.adapters.trl.sampling import Row, Sampling
from budgeteer.adapters.trl.scores import require_scores
from budgeteer.core import registry
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.column import with_sources
from budgeteer.core.errors import InvalidInput, VerifierError
from budgeteer.core.plan import CUT, ENDED, F64, I64
from budgeteer.engine.table import ANSWER
from budgeteer.models.chat import tags_of
from budgeteer.rl.recipe import ENTROPY, TEXT
from budgeteer.rl.reward.counted import split
from budgeteer.rl.reward.protocol import Columns, Reward
from budgeteer.solve.styles import stated

_MARKS = ("closed", "answered")


class RewardFunction:
    """A reward as TRL calls reward functions: with all rollouts of a generation, groups and all.

    Its state, if the reward has one, changes at every call, evaluations of the trainer among them, and is not in TRL's
    checkpoints: keep :meth:`state_dict` beside them.

    Args:
        reward: the reward.
        right: TRL's reward function that says how right a completion is, in [0, 1]; None = it did not say.
        max_tokens: ``max_completion_length`` of the trainer.
        tokenizer: of the model; None where no reward reads ``closed`` or ``answered``.
        answer, close: as in :class:`budgeteer.adapters.trl.BudgetedGRPOTrainer`.
        ends: ids of the tokens that end a sequence; None = the tokenizer's one.
        name: for TRL's log.

    Attributes:
        state: of the reward.
        ends: ids of the tokens that end a sequence.
    """

    def __init__(
        self,
        reward: Reward,
        right: Callable[..., Sequence[float | None]],
        max_tokens: int,
        tokenizer: Any,
        answer: str,
        close: str | None,
        ends: Collection[int] | None,
        name: str,
    ) -> None:
        self._reward, self._right, self._cap, self._tokenizer = reward, right, max_tokens, tokenizer
        self.__name__, self.state = name, reward.init()
        sources = {source.name for source in with_sources(reward.needs, ())}
        if ENTROPY in sources:
            raise InvalidInput(
                f"the reward {name} reads the entropy of each token, which TRL shows no reward function; use "
                f'BudgetedGRPOTrainer(recipe="grpo:reward={name}")'
            )
        if reward.monitor is not None:
            raise InvalidInput(
                f"the reward {name} has rollouts of its own, which TRL's trainer does not sample; leave monitor out, "
                f'or use BudgetedGRPOTrainer(recipe="grpo:reward={name}")'
            )
        self._marks = bool(sources & set(_MARKS))
        if self._marks and tokenizer is None:
            raise InvalidInput(f"the reward {name} reads where thinking and answer end; give the model's tokenizer")
        own = [] if tokenizer is None or tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        self.ends = own if ends is None else list(ends)
        self._sampling: Sampling | None = None
        if tokenizer is not None:
            tags = tags_of(str(getattr(tokenizer, "chat_template", None) or ""))
            closing = (tags.close if tags else "") if close is None else close
            self._sampling = Sampling(tokenizer, len(tokenizer), self.ends, closing, answer, 1.0)

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **more: Any
    ) -> list[float | None]:
        """The rewards of the rollouts; None where nobody said how right one is.

        Raises:
            InvalidInput: several processes share the rollouts, or a column is missing that the reward reads.
        """
        if PartialState().num_processes > 1:
            raise InvalidInput(
                f"the reward {self.__name__} has to see whole groups, and {PartialState().num_processes} processes "
                f'share them; use BudgetedGRPOTrainer(recipe="grpo:reward={self.__name__}"), which gathers them'
            )
        given = self._right(prompts=prompts, completions=completions, completion_ids=completion_ids, **more)
        given = require_scores(given, f"right of {self.__name__}", len(completion_ids))
        correct = np.array([np.nan if value is None else value for value in given], np.float64)
        known = np.flatnonzero(~np.isnan(correct))
        rows = self._columns(
            [list(completion_ids[i]) for i in known.tolist()], known, prompts, completions, correct, more
        )
        if self._reward.terms is not None and "log_metric" in more:
            for term, mean in self._reward.means(self.state, rows).items():
                more["log_metric"](f"{self.__name__}/{term}", mean)
        scored = self._reward.score(self.state, rows)
        self.state = self._reward.observe(self.state, rows)
        made: list[float | None] = [None] * len(correct)
        for i, value in zip(known.tolist(), scored.tolist(), strict=True):
            made[i] = value
        return made

    def _columns(
        self,
        ids: list[list[int]],
        known: I64,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        correct: F64,
        more: Mapping[str, Any],
    ) -> Columns:
        """What the reward reads of the rows ``known``."""
        length = np.array([len(row) for row in ids], np.int64)
        tokens = np.zeros((len(ids), int(length.max(initial=1))), np.int64)
        for i, row in enumerate(ids):
            tokens[i, : len(row)] = row
        ended = np.array([bool(row) and row[-1] in self.ends for row in ids], np.bool_)
        sources = [source.name for source in with_sources(self._reward.needs, ()) if not source.written]
        for name in (*sources, "key"):
            if name in more and len(more[name]) != len(correct):
                raise InvalidInput(
                    f"column {name!r} has {len(more[name])} values for {len(correct)} completions; give one for each"
                )
        keys = [str(key) for key in more["key"]] if "key" in more else [json.dumps(prompt) for prompt in prompts]
        keys = [keys[i] for i in known.tolist()]
        given: dict[str, Any] = {name: [more[name][i] for i in known.tolist()] for name in sources if name in more}
        given |= {"tokens": tokens, "prompt_key": keys}
        given["sampled"] = (np.arange(tokens.shape[1]) < length[:, None]) * 1
        given[TEXT] = self._texts(ids, [completions[i] for i in known.tolist()])
        if self._marks and self._sampling is not None:
            plain = [Row(i, row, ENDED, -1, -1, None, [], 1.0) for i, row in enumerate(ids)]
            marked = self._sampling.marked(plain)
            given |= {name: np.array([getattr(row, name) for row in marked], np.int64) for name in _MARKS}
        _, group = np.unique(np.array([*keys, ""], object)[:-1].astype(str), return_inverse=True)
        status = np.where((length >= self._cap) & ~ended, CUT, ENDED)
        rows = Columns(np.clip(correct[known], 0, 1), length, group.reshape(-1), np.full(len(ids), self._cap), status)
        return rows.completed(self._reward.needs, given)

    def _texts(self, ids: list[list[int]], completions: Sequence[Any]) -> list[str]:
        if self._tokenizer is not None:
            return list(self._tokenizer.batch_decode(ids, skip_special_tokens=True))
        return [_text(completion) for completion in completions]

    def state_dict(self) -> dict[str, str]:
        """The state as JSON text."""
        return {"reward": json.dumps(dump_state(self.state))}

    def load_state_dict(self, content: Mapping[str, str]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.state = load_state(self.state, json.loads(content["reward"]))


def reward(
    name: str,
    *,
    max_tokens: int,
    tokenizer: Any = None,
    right: Callable[..., Sequence[float | None]] | None = None,
    verifier: str = "auto",
    reference: str = "answer",
    answer: str = ANSWER,
    close: str | None = None,
    ends: Collection[int] | None = None,
) -> RewardFunction:
    """A reward of this package as a reward function of TRL's ``GRPOTrainer``, with the numbers that a run of ours has.

    It takes the place of the function that says how right a completion is, and asks that one itself. Columns that a
    reward reads of prompts (``effort``, ``needs_thinking``, ...) are columns of the data set. Groups are formed by
    prompt, or by the data set's column ``key``. :class:`budgeteer.adapters.trl.BudgetedGRPOTrainer` with
    ``recipe="grpo:reward=NAME"`` is the same with checkpoints, entropies and several processes.

    Args:
        name: of a registered reward with its options, or a sum such as ``"laser+0.5*overlong"``.
        max_tokens: ``max_completion_length`` of the trainer.
        tokenizer: of the model, for rewards that read where thinking and answer end.
        right: reward function of TRL, in [0, 1] (outside of it the nearer end counts); None = ``verifier`` compares
            what the completion states as its answer with the reference.
        verifier: of this package, see ``budgeteer methods verifier``; or ``python:FILE.py``, which is called in a
            process with limits of time and memory. Where it fails the answer counts 0, with a warning and the metric
            ``NAME/verifier_failures``.
        reference: column of the data set with the reference answers.
        answer, close: as in :class:`budgeteer.adapters.trl.BudgetedGRPOTrainer`.
        ends: ids of the tokens that end a sequence; None = the tokenizer's one. Give the list of the model's generation
            configuration where that has more.

    Raises:
        UnknownName: no such reward or verifier.
        InvalidInput: the reward reads what TRL shows no reward function.

    >>> kimi = reward("kimi", max_tokens=99)
    >>> kimi(prompts=["2+2?"] * 2, completions=["4", "It is 4"], completion_ids=[[1], [2, 3, 4]], answer=["4", "4"])
    [1.5, 0.5]
    """
    refuse_texts(answer, close)
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise InvalidInput(f"max_tokens={max_tokens!r}; give max_completion_length of the trainer")
    check = verify.named("auto" if right is not None else verifier)

    def verified(completions: Sequence[Any], **columns: Any) -> list[float]:
        if reference not in columns:
            raise InvalidInput(
                f"the data set has no column {reference!r} with the reference answers; name it, reference=..., or give "
                "a reward function of your own, right=..."
            )
        if len(columns[reference]) != len(completions):
            raise InvalidInput(
                f"column {reference!r} has {len(columns[reference])} reference answers for {len(completions)} "
                "completions; give one for each"
            )
        scores, failures = list[float](), list[VerifierError]()
        for written, known in zip(completions, columns[reference], strict=True):
            try:
                scores.append(check(stated(split(_text(written))[1]), str(known)))
            except VerifierError as error:
                scores.append(0.0)
                failures.append(error)
        if failures:
            warnings.warn(f"{failures[0]}; {len(failures)} of {len(scores)} answers count 0 for this", stacklevel=2)
        if "log_metric" in columns:
            columns["log_metric"](f"{name}/verifier_failures", float(len(failures)))
        return scores

    return RewardFunction(
        registry.part_of("reward", name), right or verified, max_tokens, tokenizer, answer, close, ends, name
    )


def _text(completion: Any) -> str:
    """What a completion says: its text, or the content of the last message of a chat."""
    if isinstance(completion, str):
        return completion
    return str(completion[-1].get("content") or "") if completion else ""
