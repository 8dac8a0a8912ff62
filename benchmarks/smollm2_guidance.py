from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path
from typing import Any

from budgeteer.models.llama_cpp import LlamaCpp
from budgeteer.models.model import Request
from budgeteer.solve import derive
from budgeteer.solve.lines import Lines
from budgeteer.solve.styles import Asked, Example, few_shot

ROOT = Path(__file__).resolve().parents[1]
TEMPERATURE, TERMS, CAP, TRACES = 0.7, (2, 3, 3, 4), 80, 2
TUNING, HELD_OUT = 11, 12
"""Seeds of the problems that the head and the budgets are chosen on, and of those that are evaluated."""


def worked(terms: list[int], checks: list[bool]) -> Example:
    """A sum from left to right, some steps of which are done again the other way round."""
    lines, total = list[str](), terms[0]
    for term, check in zip(terms[1:], checks, strict=True):
        lines.append(f"{total} + {term} = {total + term}.")
        if check:
            lines.append(f"Check: {term} + {total} = {total + term}.")
        total += term
    return Example(question(terms), " ".join(lines), str(total))


def question(terms: list[int]) -> str:
    return " + ".join(map(str, terms)) + " ="


EXAMPLES = (
    worked([4, 3, 6], [True, False]),
    worked([2, 7], [False]),
    worked([9, 5, 8], [True, True]),
    worked([8, 3, 1, 2], [False, False, True]),
)
STYLE = few_shot(Asked("sums", True, EXAMPLES))


def problems(count: int, seed: int, without: frozenset[str]) -> list[tuple[str, str]]:
    """``count`` distinct (question, answer), none of them in ``without``."""
    rng, found = random.Random(seed), dict[str, str]()
    while len(found) < count:
        terms = [rng.randint(1, 9) for _ in range(rng.choice(TERMS))]
        if question(terms) not in without:
            found[question(terms)] = str(sum(terms))
    return list(found.items())


async def traces(asked: list[tuple[str, str]], path: Path) -> list[dict[str, Any]]:
    """Free traces of the problems through llama.cpp; those that ``path`` has are not drawn again."""
    lines = Lines(path, sync=False)
    found = {row["question"]: row for row in lines.found}
    todo = [text for text, _ in asked if text not in found]
    if todo:
        model, begin = LlamaCpp(slots=4 * TRACES, context=512), time.monotonic()
        gate, done = asyncio.Semaphore(4), 0

        async def one(text: str) -> None:
            nonlocal done
            async with gate:
                request = Request(
                    STYLE.prompt(text), CAP, TRACES, TEMPERATURE, STYLE.stop, seed=derive(TUNING, "trace", text)
                )
                response = await model.generate(request)
            found[text] = {"question": text, "traces": [(c.text, c.tokens, c.finish) for c in response.choices]}
            lines.append(found[text])
            done += 1
            left = (time.monotonic() - begin) * (len(todo) - done) / done / 60
            print(f"\r{done}/{len(todo)} problems, {left:.1f} min left ", end="", file=sys.stderr, flush=True)

        try:
            await asyncio.gather(*map(one, todo))
        finally:
            await model.aclose()
            print(file=sys.stderr)
    lines.close()
    return [found[text] for text, _ in asked]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    evaluated = problems(150, HELD_OUT, frozenset())
    tuned = problems(320, TUNING, frozenset(text for text, _ in evaluated))
    asyncio.run(traces(tuned, ROOT / "runs" / "smollm2_guidance" / "traces.jsonl"))
