"""Search under a budget on the embedded reasoner: accuracy against tokens, paired over questions and samples.

    python benchmarks/search.py                  # writes benchmarks/results/search.json
    python benchmarks/search.py --quick          # smoke test: small, writes nothing without --out

300 chains of 1 to 8 steps a seed (greedy accuracy 0.68 to 0.75). For every question 40 traces are sampled from the
reasoner at temperature 1 (cap 96 tokens, ended when the answer is complete) and handed out in order by a model that
replays them, so that all strategies see the same samples: a request for n gets the next n. Strategies run as they are,
through ``Budgeted`` on a ledger. ``output`` counts sampled tokens; ``all`` counts the prompt of every request, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pickle
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.allocate import neyman, uniform
from budgeteer.lab.stats import mean_ci
from budgeteer.lab.tasks.base import THINK_END
from budgeteer.lab.tasks.chains import MODULUS, Chains
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import LENGTH, LOGPROBS, SEED, STOP, Choice, Chunk, Message, Request, Response
from budgeteer.search import adaptive_vote, best_of_majority, best_of_n, self_consistency
from budgeteer.search.aggregate import weighted_majority
from budgeteer.search.score import mean_logprob, programmatic
from budgeteer.search.split import agreement, gains, split
from budgeteer.solve import Answer, Budgeted, Question, Strategy, Style, Task
from budgeteer.usage import Usage

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "search.json"
CAP, SAMPLES = 96, 40
STYLE = Style(str, lambda rest: rest.split("\n")[0].strip() or None, THINK_END, stop=("\n",), answer_tokens=5)
STEP = re.compile(r"(\d+)([-+*])(\d+)=(\d+);")


def pool(seed: int, questions: int, folder: Path | None) -> dict[str, Any]:
    """Prompts, reference answers, input tokens, and SAMPLES traces of each: (text, tokens, mean log-probability)."""
    path = None if folder is None else folder / f"chains{seed}-{questions}.pkl"
    if path is not None and path.exists():
        return pickle.loads(path.read_bytes())  # written by the lines below
    from budgeteer.models.policy import load_policy
    from budgeteer.rl.sampler import sample
    from budgeteer.stop import answered

    policy = load_policy()
    items = Chains(questions, seed=900 + seed, min_steps=1, max_steps=8).items
    prompts = policy.encode([item.prompt for item in items])
    drawn: dict[str, Any] = {}
    for name, n, temperature in (("traces", SAMPLES, 1.0), ("greedy", 1, 1e-4)):
        rows, _ = sample(
            policy.model, [item.key for item in items], prompts, np.full(len(items), n), max_tokens=CAP,
            markers=policy.markers, seed=seed, stopper=answered(), temperature=temperature,
        )  # fmt: skip
        texts = policy.decode([t[:m].tolist() for t, m in zip(rows.tokens, rows.length, strict=True)])
        logprob = [float(p[:m].mean()) for p, m in zip(rows.logprob, rows.length, strict=True)]
        traces: list[list[tuple[str, int, float]]] = [[] for _ in items]
        for group, *trace in zip(rows.group.tolist(), texts, rows.length.tolist(), logprob, strict=True):
            traces[group].append(tuple(trace))
        drawn[name] = traces
    found = {
        "prompts": [item.prompt for item in items],
        "answers": [item.answer for item in items],
        "input": [len(prompt) for prompt in prompts],
        **drawn,
    }
    if path is not None:
        path.write_bytes(pickle.dumps(found))
    return found


class Replay:
    """Hands out the traces of a pool in order; a request for n of a prompt gets the next n, cut at its cap."""

    name = "replay"
    capabilities = frozenset({SEED, LOGPROBS})

    def __init__(self, found: dict[str, Any]) -> None:
        self.input = dict(zip(found["prompts"], found["input"], strict=True))
        self.traces = dict(zip(found["prompts"], found["traces"], strict=True))
        self.at: dict[str, int] = defaultdict(int)

    def count(self, prompt: str | tuple[Message, ...]) -> int:
        return int(self.input[str(prompt)])

    async def generate(self, request: Request) -> Response:
        prompt = str(request.prompt)
        start = self.at[prompt]
        self.at[prompt] += request.n
        rows = [self.traces[prompt][(start + i) % SAMPLES] for i in range(request.n)]
        choices = tuple(self._choice(*row, request.max_tokens) for row in rows)
        output = sum(choice.tokens or 0 for choice in choices)
        return Response(choices, Usage(input=self.input[prompt], output=output))

    def _choice(self, text: str, tokens: int, logprob: float, cap: int) -> Choice:
        closed = THINK_END in text and ("\n" in text.partition(THINK_END)[2] or tokens < CAP)
        if tokens > cap or not closed:
            return Choice(text.partition(THINK_END)[0], min(tokens, cap), LENGTH, (logprob,) * min(tokens, cap))
        return Choice(text.split("\n")[0], tokens, STOP, (logprob,) * tokens)

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        yield await self.generate(request)

    async def aclose(self) -> None:
        pass


def steps_hold(question: str, trace: str) -> float:
    """Share of a trace's steps that are right arithmetic and follow from the question, 0 without any.

    Checked is what is written: that a step uses the question's next operator and operand and the last step's result,
    and that its result is right modulo 11. The reference answer is not looked at.
    """
    text = question.partition(": ")[2].removesuffix(" =").split()
    wanted, value = list(zip(text[1::2], text[2::2], strict=True)), text[0]
    steps = STEP.findall(trace.partition(THINK_END)[0])
    right = 0
    for (a, op, b, result), (want_op, want_b) in zip(steps, wanted, strict=False):
        true = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[op] % MODULUS
        right += (a, op, b) == (value, want_op, want_b) and int(result) == true
        value = result
    said = trace.partition(THINK_END)[2].split("\n")[0].strip()
    return (right + (len(steps) == len(wanted) and said == value)) / (len(wanted) + 1)


def tasks_of(found: dict[str, Any], seed: int, unit: str, budget: int) -> list[Task]:
    """One a question, all on one allowance."""
    ledger, model = MemoryLedger(), Replay(found)
    ledger.open("bench", [Limit(unit, budget)])
    allowance = Allowance(ledger, "bench", {unit: budget})
    return [
        Task(Question(f"{i:04d}", prompt), Budgeted(model, allowance), STYLE, seed * 100_003 + i)
        for i, prompt in enumerate(found["prompts"])
    ]


def measure(tasks: Sequence[Task], answers: dict[int, Answer], found: dict[str, Any]) -> dict[str, float]:
    """Accuracy, and tokens a question."""
    usage = [task.model.spend.usage for task in tasks]
    output = sum(u.output or 0 for u in usage) / len(tasks)
    return {
        "accuracy": sum(answers[i].answer == want for i, want in enumerate(found["answers"])) / len(tasks),
        "output": output,
        "all": output + sum(u.input or 0 for u in usage) / len(tasks),
        "samples": sum(len(answer.traces) for answer in answers.values()) / len(tasks),
        "calls": sum(task.model.spend.calls for task in tasks) / len(tasks),
    }


def one_by_one(strategy: Strategy) -> Callable[[Sequence[Task]], Any]:
    async def every(tasks: Sequence[Task]) -> dict[int, Answer]:
        return {i: await strategy.solve(task) for i, task in enumerate(tasks)}

    return every


def in_total(**options: Any) -> Callable[[Sequence[Task]], Any]:
    async def every(tasks: Sequence[Task]) -> dict[int, Answer]:
        options_ = {key: value() if callable(value) and key == "allocator" else value for key, value in options.items()}
        return {i: answer async for i, answer in split(tasks, most=SAMPLES, max_tokens=CAP, **options_)}

    return every


def strategies() -> dict[str, Callable[[Sequence[Task]], Any]]:
    """One question at a time, without a budget but the number of samples."""
    cap: dict[str, Any] = {"max_tokens": CAP}
    checked = programmatic(steps_hold)
    return {
        **{f"self-consistency {n}": one_by_one(self_consistency(n, **cap)) for n in (1, 4, 8, 16, 32)},
        **{
            f"adaptive-vote risk={risk:g}": one_by_one(adaptive_vote(32, risk=risk, **cap))
            for risk in (0.0, 0.05, 0.1, 0.15)
        },
        **{
            f"adaptive-vote leads risk={risk:g}": one_by_one(adaptive_vote(32, rule="leads", risk=risk, **cap))
            for risk in (0.05, 0.2)
        },
        **{
            f"best-of-n logprob, weighted {n}": one_by_one(
                best_of_n(mean_logprob(), n, aggregate=weighted_majority(), **cap)
            )
            for n in (4, 16)
        },
        "best-of-n logprob 32": one_by_one(best_of_n(mean_logprob(), 32, **cap)),
        "best-of-majority logprob 32": one_by_one(best_of_majority(mean_logprob(), 32, alpha=0.2, **cap)),
        **{f"best-of-n checked {n}": one_by_one(best_of_n(checked, n, **cap)) for n in (4, 32)},
        **{f"best-of-n checked {n}, enough": one_by_one(best_of_n(checked, n, enough=1.0, **cap)) for n in (8, 16, 32)},
        "best-of-majority checked 32": one_by_one(best_of_majority(checked, 32, alpha=0.1, **cap)),
    }


SPLITS: dict[str, Callable[[Sequence[Task]], Any]] = {
    "split gains": in_total(show=gains),
    "split uniform": in_total(show=agreement, allocator=uniform, risk=0.0),
    "split uniform, decided": in_total(show=agreement, allocator=uniform),
    "split neyman": in_total(show=agreement, allocator=neyman),
}
SHARES = (0.2, 0.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="30 questions, 2 seeds")
    parser.add_argument("--pool", type=Path, help="folder in which to keep the sampled traces")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    questions, seeds = (30, 2) if args.quick else (300, 5)
    if args.pool is not None:
        args.pool.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    greedy = []
    for seed in range(seeds):
        found = pool(seed, questions, args.pool)
        said = [STYLE.read(trace[0][0]) for trace in found["greedy"]]
        greedy.append(float(np.mean([a == b for a, b in zip(said, found["answers"], strict=True)])))
        for name, play in strategies().items():
            tasks = tasks_of(found, seed, "output", 10**12)
            rows[name].append(measure(tasks, asyncio.run(play(tasks)), found))
            print(seed, name, rows[name][-1], flush=True)
        for unit in ("output", "all"):
            full = rows["self-consistency 32"][-1][unit] * questions
            for share in SHARES if unit == "output" else (0.4,):
                for name, play in SPLITS.items():
                    tasks = tasks_of(found, seed, unit, int(share * full))
                    key = f"{name}, {share:.0%} of {unit}"
                    rows[key].append(measure(tasks, asyncio.run(play(tasks)), found))
                    print(seed, key, rows[key][-1], flush=True)
    base = rows["self-consistency 32"]
    table = []
    for name, own in rows.items():
        row: dict[str, Any] = {"name": name}
        for key in own[0]:
            ci = mean_ci([one[key] for one in own])
            row[key] = {"mean": ci.mean, "low": ci.low, "high": ci.high}
        for key in ("output", "all"):
            row[f"{key}_share"] = float(np.mean([a[key] / b[key] for a, b in zip(own, base, strict=True)]))
        ci = mean_ci([a["accuracy"] - b["accuracy"] for a, b in zip(own, base, strict=True)])
        row["accuracy_minus_sc32"] = {"mean": ci.mean, "low": ci.low, "high": ci.high}
        table.append(row)
    pairs = []
    for name, own in rows.items():
        if name.startswith("split gains, "):
            for other in ("split uniform", "split uniform, decided", "split neyman"):
                theirs = rows[name.replace("split gains", other, 1)]
                ci = mean_ci([a["accuracy"] - b["accuracy"] for a, b in zip(own, theirs, strict=True)])
                pairs.append({"name": name, "against": other, "mean": ci.mean, "low": ci.low, "high": ci.high})
    result = {
        "questions": questions, "seeds": seeds, "task": "chains, 1 to 8 steps", "cap": CAP, "greedy": greedy,
        "table": table, "splits": pairs, "cpus": os.cpu_count(),
    }  # fmt: skip
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row in table:
        print(
            f"{row['name']:45} acc {row['accuracy']['mean']:.4f}  vs SC32 {row['accuracy_minus_sc32']['mean']:+.4f} "
            f"[{row['accuracy_minus_sc32']['low']:+.4f}, {row['accuracy_minus_sc32']['high']:+.4f}]  "
            f"output {row['output_share']:.3f}  all {row['all_share']:.3f}  samples {row['samples']['mean']:.1f}"
        )
    for row in pairs:
        print(f"{row['name']} - {row['against']}: {row['mean']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]")


if __name__ == "__main__":
    main()
