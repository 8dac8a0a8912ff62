"""Greedy decoding that a budget cuts, asked for more or less thinking, against strategies that force an answer.

    python benchmarks/think_cut.py           # writes benchmarks/results/think_cut.json
    python benchmarks/think_cut.py --quick   # smoke test: 10 questions; writes nothing without --out

The 300 questions of ``benchmarks/think.py``, greedily by the decoder of ``benchmarks/thinker_pool.py``. Part ``output``
counts sampled tokens only, so that what is read is free; part ``all`` counts it, too: a forced answer reads the prompt
and the thinking again. ``low effort`` and ``no thinking`` are options of the chat template, so they are what somebody
would try before any strategy. ``one request`` asks for as many samples as fit, or for one that the budget cuts, and
votes; ``one sample`` is what a choice at random among samples would say. Both get the pool's samples at temperature 1
(``--pool``, 5 seeds), of which the text is cut where its own tokens would be. Nothing here scores traces, so there is
no verifier to give to both sides. Intervals draw questions and seeds; differences are paired, to greedy decoding, to
greedy decoding with low effort and to one request, each cut by the same budget. A run that is stopped goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from budgeteer.core.budget import Budget
from budgeteer.core.usage import Usage
from budgeteer.lab import frontier
from budgeteer.lab.results import write_text
from budgeteer.models.chat import THINK, Chat, Prompt, template_options, written
from budgeteer.models.model import PREFILL, PREFIX, SEED, Choice, Chunk, Finish, Request, Response
from budgeteer.solve import Strategy, styles
from budgeteer.solve.runner import Pause
from budgeteer.strategies import budget_forcing, direct, elastic, self_consistency
from steps import table
from think import STYLE, asked_so
from thinker_pool import CAP, Drawer, pool, questions_of

OUT = Path(__file__).parent / "results" / "think_cut.json"
BUDGETS = {"output": (64, 96, 128, 192), "all": (96, 128, 192, 256, 384)}
REFERENCES = ("greedy, low effort", "one request")
"""What differences are taken to, beside greedy decoding."""
SEEDS = 5


class Drawn:
    """The thinking model as a Model. At temperature 0 calls that wait at the same time are decoded together, and what
    is known of a prompt is not decoded again; else a request for n gets the next n samples that :meth:`begin` gave."""

    name = "thinker"
    capabilities = frozenset({SEED, PREFIX, PREFILL})
    tags, context = THINK, None

    def __init__(self) -> None:
        self.drawer = Drawer()
        self.samples: dict[Prompt, list[Sequence[Any]]] = {}
        self.at: dict[Prompt, int] = {}
        self.known: dict[tuple[int, ...], list[int]] = {}
        self.waiting: list[tuple[tuple[int, ...], int]] = []
        self.decoding: asyncio.Task[None] | None = None
        self.encode, self.text = lru_cache(2**16)(self._encode), self.drawer.tokenizer.decode

    def begin(self, samples: dict[Prompt, list[Sequence[Any]]]) -> None:
        """Start with the first of these samples of each prompt: text, tokens, log-probability, whether it ended."""
        self.samples, self.at = samples, dict.fromkeys(samples, 0)

    def _encode(self, prompt: Prompt) -> tuple[int, ...]:
        tokenizer = self.drawer.tokenizer
        if isinstance(prompt, Chat):
            options = template_options(prompt.thinking, tokenizer.chat_template, self.name)
            messages = [message._asdict() for message in prompt.messages]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
            prompt = written(text, prompt.begun, THINK)
        return tuple(tokenizer(prompt, add_special_tokens=False).input_ids)

    def count(self, prompt: Prompt) -> int:
        return len(self.encode(prompt))

    async def generate(self, request: Request) -> Response:
        if request.temperature:
            return self._next(request)
        if request.n > 1:
            raise AssertionError("there is one greedy trace")
        ids, cap = self.encode(request.prompt), request.max_tokens
        while not self._enough(ids, cap):
            if (ids, cap) not in self.waiting:
                self.waiting.append((ids, cap))
            if self.decoding is None:
                self.decoding = asyncio.create_task(self._decode())
            await self.decoding
        text, tokens, ended = self._until(self.known[ids][:cap], request.stop)
        choice = Choice(text, tokens, Finish.STOP if ended else Finish.LENGTH)
        return Response((choice,), Usage(input=len(ids), output=tokens))

    def _next(self, request: Request) -> Response:
        start = self.at[request.prompt]
        self.at[request.prompt] += request.n
        choices = []
        for text, tokens, _, ended in self.samples[request.prompt][start : start + request.n]:
            if tokens > request.max_tokens:
                ids = self.drawer.tokenizer(text, add_special_tokens=False).input_ids
                text, tokens, ended = self.text(ids[: request.max_tokens]), request.max_tokens, False
            choices.append(Choice(text, tokens, Finish.STOP if ended else Finish.LENGTH))
        if len(choices) < request.n:
            raise AssertionError("a strategy wants more samples than there are")
        output = sum(choice.tokens or 0 for choice in choices)
        return Response(tuple(choices), Usage(input=self.count(request.prompt), output=output))

    def _until(self, tokens: list[int], stop: tuple[str, ...]) -> tuple[str, int, bool]:
        """The text before the first stop text or the end of the turn, its tokens with that, whether there is one."""
        ended = tokens[-1] == self.drawer.end
        text = self.text(tokens[:-1] if ended else tokens)
        at = min((text.index(mark) for mark in stop if mark in text), default=-1)
        if at < 0:
            return text, len(tokens), ended
        last = max(len(mark) for mark in stop if text.startswith(mark, at))
        reaches = range(1, len(tokens) + 1)  # which of these lengths holds the whole stop text
        return text[:at], 1 + bisect_left(reaches, at + last, key=lambda k: len(self.text(tokens[:k]))), True

    def _enough(self, ids: tuple[int, ...], cap: int) -> bool:
        known = self.known.get(ids, [])
        return len(known) >= cap or (bool(known) and known[-1] == self.drawer.end)

    async def _decode(self) -> None:
        await asyncio.sleep(0.05)  # others come, too
        batch, self.waiting, self.decoding = self.waiting, [], None
        most = max(cap for _, cap in batch)
        drawn = self.drawer.tokens([ids for ids, _ in batch], 0.0, 0, CAP if most > CAP // 8 else most)
        for (ids, _), (tokens, _) in zip(batch, drawn, strict=True):
            self.known[ids] = tokens

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        yield await self.generate(request)

    async def aclose(self) -> None:
        pass


def strategies() -> dict[str, Strategy]:
    """What decodes greedily; the first is what differences are taken to."""
    greedy, forced = direct(CAP), budget_forcing(CAP)
    return {
        "greedy": greedy,
        "greedy, low effort": asked_so(greedy, "think:effort=low"),
        "greedy, no thinking": asked_so(greedy, "think:on=false"),
        "budget-forcing": forced,
        "budget-forcing, low effort": asked_so(forced, "think:effort=low"),
        "elastic": elastic(CAP),
    }


def sampled() -> dict[str, Strategy]:
    """What gets the samples of the pool."""
    return {"one request": self_consistency(8, max_tokens=CAP), "one sample": direct(CAP, temperature=1.0)}


def measure(
    kind: str, n: int, seeds: int, model: Drawn, rows: dict[str, list[dict[str, Any]]], folder: Path
) -> dict[str, Any]:
    """All numbers of a part."""
    asked = questions_of(n)
    style = styles.style_of(STYLE, asked.info.by(model))
    budgets = [Budget.parse(f"{kind}:{units}") for units in BUDGETS[kind]]

    async def work() -> dict[frontier.Cell, Any]:
        async def run(chosen: dict[str, Strategy], of: Sequence[Budget], seed: int) -> dict[frontier.Cell, Any]:
            return await frontier.measure(
                chosen, of, [seed], asked, model, style, folder, about={"benchmark": "think_cut"}, concurrency=n,
                timeout=3600, prices=None, durable=False, pause=Pause(), on_row=lambda cell, row, progress: None,
            ) or {}  # fmt: skip

        greedy = await run(strategies(), budgets, 0)
        cells = {replace(cell, seed=seed): own for cell, own in greedy.items() for seed in range(seeds)}
        for seed in range(seeds):
            samples = {style.prompt(q.text): list(rows[q.id][seed]["sampled"]) for q in asked.questions}
            for budget in budgets:
                for name, strategy in sampled().items():
                    model.begin(samples)
                    cells |= await run({name: strategy}, [budget], seed)
        return cells

    cells = asyncio.run(work())
    config = {"task": "thinking", "questions": n, "style": STYLE}
    results = frontier.analyse(cells, kind, config)
    for reference in REFERENCES:
        first = dict(sorted(cells.items(), key=lambda pair: pair[0].strategy != reference))
        results["differences"] += frontier.analyse(first, kind, config)["differences"]
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke test; the numbers mean nothing")
    parser.add_argument("--pool", type=Path, default=Path("runs/thinker_pool"), help="traces (default %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/think_cut"), help="rows so far (%(default)s)")
    parser.add_argument("--out", type=Path, help=f"results file (default: {OUT.name} beside this file; none if quick)")
    args = parser.parse_args(argv)
    out, model = args.out or (None if args.quick else OUT), Drawn()
    results = json.loads(out.read_text(encoding="utf-8")) if out is not None and out.is_file() else {}
    n, seeds, samples = (10, 2, 8) if args.quick else (300, SEEDS, 32)
    rows = pool(questions_of(n), range(seeds), samples, args.pool / "quick" if args.quick else args.pool)
    for kind in BUDGETS:
        results[kind] = measure(kind, n, seeds, model, rows, args.folder / ("quick" if args.quick else "") / kind)
        print(table(results[kind]), flush=True)
        if out is not None:
            write_text(json.dumps(results, indent=1) + "\n", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
