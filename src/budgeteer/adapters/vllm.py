"""Steers inside vLLM: a logits processor for its V1 and its V2 model runner, found by the entry point of this package.

    vllm serve MODEL --no-async-scheduling
    client.chat.completions.create(..., extra_body={"vllm_xargs": {"budgeteer_steer": "budget-forcing:most=500"}})

Nothing happens to requests that do not ask for it. What they may ask for stands in ``SamplingParams.extra_args``, which
``vllm_xargs`` of a request becomes:

- ``budgeteer_steer``: a steer with its options as on the command line, or a list of them, the first one's word first.
- ``budgeteer_close``: the text that closes the thinking; without it, the tag of the model's chat template. ``""`` = the
  prompt has closed it already.
- ``budgeteer_group``: any text; requests with the same one are samples of one question to a steer that compares them
  (zip-rc). The choices of one request (``n``) share it by themselves.

A logits processor sees tokens and logits, and may change logits; so may a steer here. What follows from that:

- Hidden states are out of reach: guidance, ZIP-RC and DiffAdapt need their head in the model's vocabulary
  (``budgeteer heads train ... --form vocabulary``); it is read from the folder ``heads`` of the served model.
- It cannot end a request. A row that a steer ends has the end of the sequence forced, one token more than elsewhere.
- Where a steer gives logits, they are drawn from at the temperature that it wants; the ``top_p`` and penalties of the
  request still act on them. Elsewhere vLLM draws as it does by itself, from its own random numbers.
- The V1 runner shows the tokens so far only without asynchronous scheduling, or where the processor is named on the
  command line, too: ``--logits-processors budgeteer.adapters.vllm:Budgeteer``.

What cannot be steered is refused when it is asked, or, where only the engine can know, ended at once and logged: an
answer that was to be steered is never left to run without.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from budgeteer.adapters.vllm_asked import asked_of
from budgeteer.core.errors import BudgeteerError, InvalidInput

if TYPE_CHECKING:
    from budgeteer.adapters.vllm_rows import Rows

_LOG = logging.getLogger(__name__)
_FIRST: dict[int, weakref.ref[Any]] = {}
"""id of an engine's settings -> its processor: named on the command line and as an entry point, it is made twice."""


def _interfaces() -> tuple[type, ...]:
    """The base classes of logits processors that this vLLM has: each runner takes subclasses of its own one only."""
    bases: list[type] = []
    try:
        from vllm.v1.sample.logits_processor.interface import LogitsProcessor as First

        bases.append(First)
    except ImportError:
        pass
    try:
        from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as Second

        bases.append(Second)
    except ImportError:
        pass
    return tuple(bases) or (object,)  # without vLLM, there is nobody to make one


class Budgeteer(*_interfaces()):  # type: ignore[misc]
    """Steers the requests that ask for it. vLLM makes it: see the module."""

    def __init__(self, vllm_config: Any, *where: Any) -> None:
        """``where`` is (device, is_pin_memory) in the V1 runner, and (req_states,) in V2."""
        self._config = vllm_config
        self._requests: Any = where[0] if len(where) == 1 else None
        self._batch: dict[int, tuple[Hashable, list[int]]] = {}
        self._made: Rows | None = None
        self._numbers = 0
        first = _FIRST.get(id(vllm_config))
        self._idle = first is not None and first() is not None
        if not self._idle:
            _FIRST[id(vllm_config)] = weakref.ref(self)
        self._never = () if self._idle else _never(vllm_config)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse, when it is asked, what cannot be steered.

        Raises:
            InvalidInput: says what to ask instead.
        """
        asked = asked_of(sampling_params.extra_args)
        if asked is None:
            return
        try:
            asked.check()
        except BudgeteerError as error:  # vLLM answers a ValueError with 400
            raise InvalidInput(str(error)) from error
        if sampling_params.structured_outputs is not None or sampling_params.ignore_eos:
            raise InvalidInput(
                "a steer forces tokens and ends answers, so it takes no structured output and no ignore_eos; leave "
                "that or budgeteer_steer out"
            )

    def is_argmax_invariant(self) -> bool:
        """False: it forces tokens."""
        return False

    # V1: requests come and go by batch index, and the list of each one's tokens grows

    def update_state(self, batch_update: Any) -> None:
        """Follow the requests that left, came or moved."""
        if batch_update is None or self._idle:
            return
        for index in batch_update.removed:
            self._leave(index)
        for index, params, _, tokens in batch_update.added:
            self._leave(index)
            asked = asked_of(params.extra_args)
            if asked is not None:
                self._numbers += 1
                self._batch[index] = (self._numbers, tokens)
                self._rows().add(self._numbers, asked, params)
        for index, other, direction in batch_update.moved:
            mine, theirs = self._batch.pop(index, None), self._batch.pop(other, None)
            if mine is not None:
                self._batch[other] = mine
            if theirs is not None and direction.name == "SWAP":
                self._batch[index] = theirs
            elif theirs is not None:
                self._rows().remove(theirs[0])

    def _leave(self, index: int) -> None:
        gone = self._batch.pop(index, None)
        if gone is not None:
            self._rows().remove(gone[0])

    # V2: requests have slots that are used again, and their tokens are on the device

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take a request that enters a slot. Returns whether its logits may be changed."""
        if self._idle:
            return False
        if self._made is not None:
            self._made.remove(req_idx)
        asked = asked_of(sampling_params.extra_args)
        if asked is not None:
            self._rows().add(req_idx, asked, sampling_params)
        return asked is not None or bool(self._never)

    # both

    def apply(self, logits: Any, ctx: Any = None) -> Any:
        """Change the logits [n, V] of the requests that are steered, in place."""
        if self._idle:
            return logits
        if self._made is not None:
            at = self._at_v1(len(logits)) if ctx is None else self._at_v2(ctx)
            if at:
                self._made.apply(logits, at)
        if self._never:
            logits[:, list(self._never)] = -float("inf")
        return logits

    def _at_v1(self, rows: int) -> list[tuple[int, Hashable, Sequence[int]]]:
        return [(index, key, tokens) for index, (key, tokens) in sorted(self._batch.items()) if index < rows]

    def _at_v2(self, ctx: Any) -> list[tuple[int, Hashable, Sequence[int]]]:
        assert self._made is not None
        if not self._made.knows(ctx.idx_mapping_np.tolist()):
            return []
        slots, last, states = ctx.expanded_idx_mapping.tolist(), ctx.pos.tolist(), self._requests
        steered: list[tuple[int, Hashable, Sequence[int]]] = []
        for row, slot in enumerate(slots):
            if not self._made.knows([slot]):
                continue
            begin, end = int(states.prompt_len.np[slot]), last[row] + 1
            if end < begin:  # a part of the prompt: nothing is sampled
                continue
            if slots.count(slot) > 1:
                self._made.refuse(slot, "speculative decoding samples several tokens at once")
            steered.append((row, slot, states.all_token_ids.gpu[slot, begin:end].tolist()))
        return steered

    def _rows(self) -> Rows:
        if self._made is None:
            from budgeteer.adapters.vllm_rows import Rows, served

            self._made = Rows(served(self._config, self._never), _sizes(self._config), _LOG)
        return self._made


def _sizes(config: Any) -> tuple[int, int]:
    """(requests at once, tokens of one) of an engine."""
    return int(config.scheduler_config.max_num_seqs), int(config.model_config.max_model_len)


def _never(config: Any) -> tuple[int, ...]:
    """Ids that the served model says are never drawn: its heads in vocabulary rows. vLLM itself does not read them."""
    try:
        said = config.model_config.try_get_generation_config()
    except (AttributeError, OSError, ValueError):
        return ()
    return tuple(said.get("suppress_tokens") or ())
