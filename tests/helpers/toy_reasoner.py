"""The embedded reasoner behind the Model protocol, the slow and plain way: the whole sequence again at every step.

What the engine's handling of steers is compared with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from budgeteer.core.steer import ABORT, FINISH, Internals, Rows, Snapshot
from budgeteer.core.steer import STOP as STOPPED
from budgeteer.core.usage import Usage
from budgeteer.engine.llama import Llama
from budgeteer.models.chat import Prompt
from budgeteer.models.model import INTERNALS, PREFIX, SEED, Choice, Chunk, Finish, Request, Response
from budgeteer.models.policy import LlamaPolicy


def internals(policy: LlamaPolicy) -> Internals:
    size = policy.model.config.vocab_size
    pieces = tuple(policy.tokenizer.decode([i], skip_special_tokens=False) for i in range(size))
    return Internals(
        policy.model.embed.detach(),
        pieces,
        policy.markers.eos,
        lambda text: policy.tokenizer.encode(text, add_special_tokens=False).ids,
    )


@dataclass
class Row:
    """A choice."""

    choice: int
    closed: int
    answered: int = -1
    tokens: list[int] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)
    forced: int = 0
    ended: Finish | None = None


class ToyReasoner:
    """Decodes all choices of one request together; choice i of seed s draws from the stream (s, i)."""

    name = "toy-reasoner"
    capabilities = frozenset({PREFIX, SEED, INTERNALS})

    def __init__(self, policy: LlamaPolicy) -> None:
        self.policy, self.inside = policy, internals(policy)

    def count(self, prompt: Prompt) -> int:
        assert isinstance(prompt, str), "it has no chat template"
        return len(self.policy.encode([prompt])[0])

    async def generate(self, request: Request) -> Response:
        with torch.inference_mode():
            return self.decode(request)

    def decode(self, request: Request) -> Response:
        model: Llama = self.policy.model
        assert isinstance(request.prompt, str), "it has no chat template"
        prompt = self.policy.encode([request.prompt])[0]
        marker = tuple(self.inside.encode(request.close)) if request.close else ()
        rows = [Row(i, closed=-1 if marker else 0) for i in range(request.n)]
        inputs = [model.embed[torch.tensor(prompt)] for _ in rows]
        uniform = [np.random.default_rng([request.seed or 0, i]).random(request.max_tokens) for i in range(request.n)]
        caps = np.full(request.n, request.max_tokens)
        steer = request.steer
        state = steer.init(Rows(tuple(map(str, range(request.n))), caps, request.seed or 0)) if steer else ()
        while live := [row for row in rows if row.ended is None]:
            width = max(len(inputs[row.choice]) for row in live)
            x = torch.stack(
                [torch.cat([inputs[r.choice], torch.zeros(width - len(inputs[r.choice]), 64)]) for r in live]
            )
            last = torch.tensor([len(inputs[row.choice]) - 1 for row in live])
            states = torch.stack([s[torch.arange(len(live)), last] for s in model.states(x)], 1)
            logits = model.logits(states[:, -1])
            action = None
            if steer is not None:
                now = self.snapshot(request, live, marker, logits, states)
                action, state = steer.step(state, now)
            for j, row in enumerate(live):
                decision = 0 if action is None or action.decision is None else int(action.decision[j])
                if decision in (ABORT, STOPPED) or (decision == FINISH and row.answered >= 0):
                    row.ended = Finish.ABORTED if decision == ABORT else Finish.STOP
                    continue
                if decision == FINISH and row.closed < 0 and not row.queue:
                    row.queue = list(marker)
                token, score, steered = -1, logits[j].double(), False
                if action is not None and action.force is not None:
                    token = int(action.force[j])
                if action is not None and action.logits is not None and (action.drawn is None or action.drawn[j]):
                    score, steered = action.logits[j].double(), True
                if row.queue:
                    token = row.queue.pop(0)
                row.forced += token >= 0
                if token < 0:
                    if request.temperature == 0:
                        token = int(score.argmax())
                    else:
                        p = (score if steered else score / request.temperature).softmax(-1).cumsum(-1)
                        token = int(torch.searchsorted(p, uniform[row.choice][len(row.tokens)] * p[-1], right=True))
                row.tokens.append(token)
                fed = model.embed[token]
                if action is not None and action.embeddings is not None and (action.soft is None or action.soft[j]):
                    fed = action.embeddings[j]
                inputs[row.choice] = torch.cat([inputs[row.choice], fed[None]])
                said = "".join(self.inside.pieces[t] for t in row.tokens)
                length = len(row.tokens)
                if (
                    row.closed >= 0
                    and row.answered < 0
                    and (token == self.inside.eos or "\n" in self.inside.pieces[token])
                ):
                    row.answered = length
                if row.closed < 0 and request.close in said:
                    row.closed = length
                if token == self.inside.eos or any(stop in self.text(row) for stop in request.stop):
                    row.ended = Finish.STOP
                elif length == request.max_tokens:
                    row.ended = Finish.LENGTH
        notes = steer.report(state) if steer and steer.report else [None] * request.n
        choices = []
        for row, note in zip(rows, notes, strict=True):
            text = self.text(row)
            cut = min([text.index(stop) for stop in request.stop if stop in text], default=len(text))
            choices.append(Choice(text[:cut], len(row.tokens), row.ended or Finish.LENGTH, None, row.forced, note))
        used = sum(len(row.tokens) for row in rows)
        return Response(tuple(choices), Usage(input=len(prompt), output=used))

    def snapshot(
        self, request: Request, live: list[Row], marker: tuple[int, ...], logits: Tensor, states: Tensor
    ) -> Snapshot:
        return Snapshot.of(
            [len(row.tokens) for row in live],
            row=[row.choice for row in live],
            cap=request.max_tokens,
            closed=[row.closed for row in live],
            answered=[row.answered for row in live],
            last=[row.tokens[-1] if row.tokens else -1 for row in live],
            forced=[bool(row.queue) for row in live],
            temperature=request.temperature,
            group=np.zeros(request.n, np.int64),
            tokens=lambda i: np.array(live[i].tokens, np.int64),
            close=lambda i: marker,
            model=self.inside,
            logits=logits,
            hidden=states,
        )

    def text(self, row: Row) -> str:
        return self.policy.decode([row.tokens])[0]

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        response = await self.generate(request)
        for i, choice in enumerate(response.choices):
            yield Chunk(i, choice.text, choice.tokens or 0)
        yield response

    async def aclose(self) -> None:
        pass
