"""The embedded reasoner behind the Model protocol, the slow and plain way: the whole sequence again at every step.

What hooks are tested against, and what the engine's handling of them is compared with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import torch

from budgeteer.core.usage import Usage
from budgeteer.engine.hook import Internals, Row, call_hooks
from budgeteer.engine.llama import Llama
from budgeteer.models.model import INTERNALS, LENGTH, PREFIX, SEED, STOP, Choice, Chunk, Request, Response
from budgeteer.models.policy import Policy


def internals(policy: Policy) -> Internals:
    size = policy.model.config.vocab_size
    pieces = tuple(policy.tokenizer.decode([i], skip_special_tokens=False) for i in range(size))
    return Internals(
        policy.model.embed.detach(),
        pieces,
        policy.markers.eos,
        lambda text: policy.tokenizer.encode(text, add_special_tokens=False).ids,
    )


class ToyReasoner:
    """Decodes all choices of one request together; choice i of seed s draws from the stream (s, i)."""

    name = "toy-reasoner"
    capabilities = frozenset({PREFIX, SEED, INTERNALS})

    def __init__(self, policy: Policy) -> None:
        self.policy, self.inside = policy, internals(policy)

    def count(self, prompt: str) -> int:
        return len(self.policy.encode([prompt])[0])

    async def generate(self, request: Request) -> Response:
        with torch.inference_mode():
            return self.decode(request)

    def decode(self, request: Request) -> Response:
        model: Llama = self.policy.model
        prompt = self.policy.encode([request.prompt])[0]
        rows = [Row(request, i, prompt) for i in range(request.n)]
        inputs = [model.embed[torch.tensor(prompt)] for _ in rows]
        uniform = [np.random.default_rng([request.seed or 0, i]).random(request.max_tokens) for i in range(request.n)]
        ended: dict[int, str] = {}
        while live := [i for i in range(request.n) if i not in ended]:
            width = max(len(inputs[i]) for i in live)
            x = torch.stack([torch.cat([inputs[i], torch.zeros(width - len(inputs[i]), 64)]) for i in live])
            last = torch.tensor([len(inputs[i]) - 1 for i in live])
            states = torch.stack([s[torch.arange(len(live)), last] for s in model.states(x)], 1)
            logits = model.logits(states[:, -1])
            effect = call_hooks(self.inside, [rows[i] for i in live], logits, states)
            for error in effect.failed.values():
                raise error
            for j, i in enumerate(live):
                if effect.end[j]:
                    ended[i] = STOP
                    continue
                token = int(effect.force[j])
                if token < 0:
                    score = effect.logits[j].double()
                    if request.temperature == 0:
                        token = int(score.argmax())
                    else:
                        p = (score if effect.tempered[j] else score / request.temperature).softmax(-1).cumsum(-1)
                        token = int(torch.searchsorted(p, uniform[i][len(rows[i].tokens)] * p[-1], right=True))
                rows[i].tokens.append(token)
                fed = effect.embeddings[j] if effect.soft[j] else model.embed[token]
                inputs[i] = torch.cat([inputs[i], fed[None]])
                if token == self.inside.eos or any(stop in self.text(rows[i]) for stop in request.stop):
                    ended[i] = STOP
                elif len(rows[i].tokens) == request.max_tokens:
                    ended[i] = LENGTH
        choices = []
        for row in rows:
            text = self.text(row)
            cut = min([text.index(stop) for stop in request.stop if stop in text], default=len(text))
            choices.append(Choice(text[:cut], len(row.tokens), ended[row.choice]))
        used = sum(len(row.tokens) for row in rows)
        self.rows = rows
        return Response(tuple(choices), Usage(input=len(prompt), output=used))

    def text(self, row: Row) -> str:
        return self.policy.decode([row.tokens])[0]

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        response = await self.generate(request)
        for i, choice in enumerate(response.choices):
            yield Chunk(i, choice.text, choice.tokens or 0)
        yield response

    async def aclose(self) -> None:
        pass
