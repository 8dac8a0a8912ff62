"""The part of vLLM that calls a logits processor, for both model runners: the same signatures, order and batch moves.

Written from the interfaces of vLLM 0.32 (``vllm/v1/sample/logits_processor/interface.py`` and
``vllm/v1/worker/gpu/sample/logits_processor/interface.py``); ``make test-vllm`` runs the real one.
"""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from enum import Enum, auto
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import torch

from budgeteer.engine.decoder import draw, streams


class First:
    """Base class of processors of the V1 runner."""


class Second:
    """Base class of processors of the V2 runner."""


class Processor(Protocol):
    """What is called, of both interfaces."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None: ...
    def is_argmax_invariant(self) -> bool: ...
    def update_state(self, batch_update: BatchUpdate | None) -> None: ...
    def add_request(self, req_idx: int, sampling_params: Any) -> bool: ...
    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor: ...


class Direction(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()


@dataclass(frozen=True)
class BatchUpdate:
    batch_size: int
    removed: list[int]
    added: list[tuple[int, Any, list[int] | None, list[int]]]
    moved: list[tuple[int, int, Direction]]


def install(monkeypatch: Any, tokenizer: Any) -> None:
    """Put modules of these names where an import finds them."""
    contents: dict[str, dict[str, Any]] = {
        "vllm": {},
        "vllm.tokenizers": {"cached_tokenizer_from_config": lambda config: tokenizer},
        "vllm.v1": {},
        "vllm.v1.sample": {},
        "vllm.v1.sample.logits_processor": {},
        "vllm.v1.sample.logits_processor.interface": {"LogitsProcessor": First},
        "vllm.v1.worker": {},
        "vllm.v1.worker.gpu": {},
        "vllm.v1.worker.gpu.sample": {},
        "vllm.v1.worker.gpu.sample.logits_processor": {"LogitsProcessor": Second},
    }
    for name, values in contents.items():
        module = types.ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "budgeteer.adapters.vllm", raising=False)


def config_of(model: Any, rows: int = 8) -> Any:
    """The settings of an engine that serves a transformers model from its folder."""
    said = model.model.generation_config.to_dict()
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_seqs=rows),
        model_config=SimpleNamespace(
            max_model_len=256,
            model=str(model.folder),
            get_vocab_size=lambda: model.model.get_input_embeddings().num_embeddings,
            try_get_generation_config=lambda: said,
        ),
    )


@dataclass
class Params:
    """The fields of SamplingParams that are read."""

    extra_args: dict[str, Any] | None
    max_tokens: int | None
    temperature: float = 1.0
    seed: int | None = None
    structured_outputs: Any = None
    ignore_eos: bool = False
    eos_token_id: int | None = None
    all_stop_token_ids: set[int] = field(default_factory=set)


@dataclass(eq=False)
class Running:
    """A request: choice ``row`` of the random stream of a seed."""

    params: Params
    prompt: list[int]
    uniform: Any
    output: list[int] = field(default_factory=list)
    waits: int = 0
    done: bool = False


def requests(model: Any, prompt: list[int], n: int, params: Params, waits: list[int] | None = None) -> list[Running]:
    """n choices of one prompt, which draw the numbers that the engines of this package give them."""
    cap = params.max_tokens or 64
    uniform = streams(params.seed or 0, n, 2048, cap)
    return [Running(params, list(prompt), uniform[i], waits=(waits or [0] * n)[i]) for i in range(n)]


class Engine:
    """Runs requests to their end.

    Args:
        model: a :class:`budgeteer.models.transformers.Transformers`.
        processor: that is called.
        runner: 1 or 2.
        chunks: the first half of a prompt comes alone. V1 samples a token there and throws it away.
        preempt: step at which all requests are taken out and begin again with what they have.
        hidden: the tokens so far are not shown, as in V1's asynchronous scheduling.
    """

    def __init__(self, model: Any, processor: Any, runner: int, **how: Any) -> None:
        self.model, self.processor, self.runner, self.how = model, processor, runner, how
        self.batch: list[Running | None] = []
        self.added: list[tuple[int, Running]] = []
        self.slots: dict[int, Running] = {}

    def run(self, asked: list[Running]) -> list[list[int]]:
        """The tokens of each request, without its end of sequence."""
        step = 0
        while not all(request.done for request in asked):
            new = [r for r in asked if r.waits == step]
            if step == self.how.get("preempt"):
                new += [r for r in asked if r.waits < step and not r.done]
            (self._first if self.runner == 1 else self._second)(new, step == self.how.get("preempt"))
            step += 1
            assert step < 500
        return [r.output[:-1] if r.output[-1] in self.model.ends else r.output for r in asked]

    def _logits(self, rows: list[Running], upto: int | None = None) -> torch.Tensor:
        out = []
        for r in rows:
            ids = torch.tensor([[*r.prompt, *r.output][:upto]])
            with torch.inference_mode():
                out.append(self.model.model(input_ids=ids).logits[0, -1].float())
        return torch.stack(out)

    def _sample(self, rows: list[Running], logits: torch.Tensor) -> None:
        for request, row in zip(rows, logits, strict=True):
            warm = request.params.temperature
            at = len(request.output)
            if warm == 0:
                token = int(row.argmax())
            else:
                token = int(draw(row[None] / warm, np.ones(1), request.uniform[at : at + 1], False)[0][0])
            request.output.append(token)
            request.done = token in self.model.ends or len(request.output) >= (request.params.max_tokens or 64)

    # V1: a dense batch. New requests fill the holes of those that ended, the last ones move into the holes that are
    # left (a hole that is filled is not told as removed), and two requests are swapped.

    def _first(self, new: list[Running], preempted: bool) -> None:
        empty = [i for i, request in enumerate(self.batch) if preempted or (request is not None and request.done)]
        removed, moved = set(empty), []
        added: list[tuple[int, Any, list[int] | None, list[int]]] = []
        for request in new:
            if empty:
                index = empty.pop(0)
                removed.discard(index)
                self.batch[index] = request
            else:
                index = len(self.batch)
                self.batch.append(request)
            added.append((index, request.params, request.prompt, self._shown(request)))
        while empty:
            last = len(self.batch) - 1
            if last == empty[-1]:
                empty.pop()
                self.batch.pop()
            else:
                hole = empty.pop(0)
                removed.discard(hole)
                moved.append((last, hole, Direction.UNIDIRECTIONAL))
                self.batch[hole] = self.batch.pop()
        last = len(self.batch) - 1
        if last > 0:
            moved.append((0, last, Direction.SWAP))
            self.batch[0], self.batch[last] = self.batch[last], self.batch[0]
        told = removed or added or moved
        update = BatchUpdate(len(self.batch), sorted(removed, reverse=True), added, moved) if told else None
        self.processor.update_state(update)
        rows = [request for request in self.batch if request is not None]
        if not rows:
            return
        if self.how.get("chunks") and new:
            self.processor.apply(self._logits(rows, len(rows[0].prompt) // 2))
            self.processor.update_state(None)
        self._sample(rows, self.processor.apply(self._logits(rows)))

    def _shown(self, request: Running) -> list[int]:
        return Hiding(request.output) if self.how.get("hidden") else request.output

    # V2: slots that are used again, rows in another order at every step, tokens in a buffer

    def _second(self, new: list[Running], preempted: bool) -> None:
        if preempted:
            self.slots = {}
        self.slots = {slot: request for slot, request in self.slots.items() if not request.done}
        free = [slot for slot in range(8) if slot not in self.slots]
        for request in new:
            slot = free.pop()
            self.slots[slot] = request
            self.processor.add_request(slot, request.params)
        if not self.slots:
            return
        slots = sorted(self.slots, key=lambda slot: (slot * 5 + len(self.slots[slot].output)) % 7)
        rows = [self.slots[slot] for slot in slots]
        states = self.processor._requests
        for slot, request in self.slots.items():
            states.prompt_len.np[slot] = len(request.prompt)
            whole = [*request.prompt, *request.output]
            states.all_token_ids.gpu[slot, : len(whole)] = torch.tensor(whole, dtype=torch.int32)
        pos = torch.tensor([len(r.prompt) + len(r.output) - 1 for r in rows])
        where = torch.tensor(slots)
        ctx = SimpleNamespace(expanded_idx_mapping=where, idx_mapping=where, idx_mapping_np=where.numpy(), pos=pos)
        if self.how.get("chunks") and new:
            part = SimpleNamespace(**{**vars(ctx), "pos": torch.tensor([len(r.prompt) // 2 - 1 for r in rows])})
            before = self._logits(rows, 4)
            tokens = slice(0, min(self.model.never, default=None))
            assert torch.equal(before[:, tokens], self.processor.apply(before.clone(), part)[:, tokens])
        self._sample(rows, self.processor.apply(self._logits(rows), ctx))


class Hiding(list):  # type: ignore[type-arg]
    """A list whose last token is not there yet."""

    def __init__(self, true: list[int]) -> None:
        self.true = true

    def __len__(self) -> int:
        return len(self.true)

    def __getitem__(self, at: Any) -> Any:
        return [*self.true[:-1], *[-1] * bool(self.true)][at]


def second_states(rows: int = 8) -> Any:
    """LogitsProcRequestState: the buffers that V2 shows."""
    return SimpleNamespace(
        prompt_len=SimpleNamespace(np=np.zeros(rows, np.int32)),
        all_token_ids=SimpleNamespace(gpu=torch.zeros(rows, 256, dtype=torch.int32)),
    )
