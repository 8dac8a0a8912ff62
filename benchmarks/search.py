"""Search under a budget on the embedded reasoner: accuracy against tokens, paired over questions and samples.

    python benchmarks/search.py                  # writes benchmarks/results/search.json
    python benchmarks/search.py --quick          # smoke test: small, writes nothing without --out

300 chains of 1 to 8 steps a seed. For every question one greedy trace and 40 traces at temperature 1 are sampled from
the reasoner (cap 96 tokens, ended when the answer is complete) and handed out in order by a model that replays them, so
that all strategies see the same samples: a request for n gets the next n. Strategies run as they are, through
``Budgeted`` on a ledger. Tokens a question: ``output`` are sampled ones; ``all`` counts the prompt of every request,
too; ``cached`` counts each question's prompt once, as if reading it again were free.

Baselines: ``greedy`` is the first row; ``minus_greedy`` and ``minus_one_request`` of each row are paired differences,
the latter from self-consistency in one request of as many tokens (two neighbouring n mixed in the proportion that gives
them), once for ``all`` and once for ``cached``. The check of the steps stands alone in two ways: ``vouched`` is the
share of the questions whose answer has a trace that passes it and ``right_if_vouched`` the accuracy of these answers,
for every row; ``greedy first, checked n`` returns the greedy answer unless it fails and one of n - 1 samples passes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import pickle
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.allocate import neyman, uniform
from budgeteer.core.usage import Usage
from budgeteer.lab.stats import mean_ci
from budgeteer.lab.tasks.base import THINK_END
from budgeteer.lab.tasks.chains import MODULUS, Chains
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import Prompt
from budgeteer.models.model import LOGPROBS, SEED, Choice, Chunk, Finish, Request, Response
from budgeteer.solve import Answer, Budgeted, Question, Strategy, Style, Task
from budgeteer.strategies import (
    adaptive_vote,
    best_of_majority,
    best_of_n,
    self_consistency,
    split,
)
from budgeteer.strategies._split import agreement, gains
from budgeteer.strategies.aggregator import weighted_majority
from budgeteer.strategies.kit.samples import Sampler, traces_of
from budgeteer.strategies.scorer import mean_logprob, programmatic

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "search.json"
CAP, SAMPLES, MOST = 96, 40, 32
CHECKED = (8, 16, 32)
"""Traces at most where a check may stop them."""
STYLE = Style(str, lambda rest: rest.split("\n")[0].strip() or None, THINK_END, stop=("\n",), answer_tokens=5)
STEP = re.compile(r"(\d+)([-+*])(\d+)=(\d+);")


def pool(seed: int, questions: int, folder: Path | None) -> dict[str, Any]:
    """Prompts, reference answers, input tokens, and SAMPLES traces of each: (text, tokens, mean log-probability)."""
    path = None if folder is None else folder / f"chains{seed}-{questions}.pkl"
    if path is not None and path.exists():
        return pickle.loads(path.read_bytes())  # written by the lines below
    from budgeteer.models.policy import load_policy
    from budgeteer.rl.sampler import sample
    from budgeteer.steer import answered

    policy = load_policy()
    items = Chains(questions, seed=900 + seed, min_steps=1, max_steps=8).items
    prompts = policy.encode([item.prompt for item in items])
    drawn: dict[str, Any] = {}
    for name, n, temperature in (("traces", SAMPLES, 1.0), ("greedy", 1, 1e-4)):
        rows, _ = sample(
            policy.model, [item.key for item in items], prompts, np.full(len(items), n), max_tokens=CAP,
            markers=policy.markers, seed=seed, steer=answered(), temperature=temperature,
        )  # fmt: skip
        texts = policy.decode([t[:m].tolist() for t, m in zip(rows.tokens, rows.length, strict=True)])
        logprob = [float(p[:m].mean()) for p, m in zip(rows.logprob, rows.length, strict=True)]
        traces: list[list[tuple[str, int, float]]] = [[] for _ in items]
        for group, *trace in zip(rows.group.tolist(), texts, rows.length.tolist(), logprob, strict=True):
            traces[group].append(tuple(trace))
        drawn[name] = traces
    drawn_pool = {
        "prompts": [item.prompt for item in items],
        "answers": [item.answer for item in items],
        "input": [len(prompt) for prompt in prompts],
        **drawn,
    }
    if path is not None:
        path.write_bytes(pickle.dumps(drawn_pool))
    return drawn_pool


class Replay:
    """Hands out the traces of a pool in order; a request for n of a prompt gets the next n, cut at its cap.

    At temperature 0 that is the greedy trace.
    """

    name = "replay"
    capabilities = frozenset({SEED, LOGPROBS})

    def __init__(self, drawn_pool: dict[str, Any]) -> None:
        self.input = dict(zip(drawn_pool["prompts"], drawn_pool["input"], strict=True))
        self.traces = dict(zip(drawn_pool["prompts"], drawn_pool["traces"], strict=True))
        self.greedy = dict(zip(drawn_pool["prompts"], drawn_pool["greedy"], strict=True))
        self.at: dict[str, int] = defaultdict(int)

    def count(self, prompt: Prompt) -> int:
        return int(self.input[str(prompt)])

    async def generate(self, request: Request) -> Response:
        prompt = str(request.prompt)
        if request.temperature == 0:
            rows = self.greedy[prompt] * request.n
        else:
            start = self.at[prompt]
            self.at[prompt] += request.n
            rows = [self.traces[prompt][(start + i) % SAMPLES] for i in range(request.n)]
        choices = tuple(self._choice(*row, request.max_tokens) for row in rows)
        output = sum(choice.tokens or 0 for choice in choices)
        return Response(choices, Usage(input=self.input[prompt], output=output))

    def _choice(self, text: str, tokens: int, logprob: float, cap: int) -> Choice:
        closed = THINK_END in text and ("\n" in text.partition(THINK_END)[2] or tokens < CAP)
        if tokens > cap or not closed:
            return Choice(text.partition(THINK_END)[0], min(tokens, cap), Finish.LENGTH, (logprob,) * min(tokens, cap))
        return Choice(text.split("\n")[0], tokens, Finish.STOP, (logprob,) * tokens)

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


def greedy_first(check: Callable[[str, str], float], n: int, *, max_tokens: int, temperature: float = 1.0) -> Strategy:
    """The check alone: the greedy trace if it passes, else samples in rounds of 1, 1, 2, 4, ... until one passes.

    If none of n traces passes, the best score is taken, of equal ones the first; so with a check that only says yes or
    no this is the greedy answer, as it is where nothing can be checked.

    Args:
        check: (question text, trace) -> score, 1 = it passes, NaN = nothing can be said.
    """

    async def solve(task: Task) -> Answer:
        greedy, sampled = (Sampler(task, max_tokens=max_tokens, temperature=t) for t in (0.0, temperature))
        drawn = await greedy.more(1)
        scores = [check(task.question.text, sample.text) for sample in drawn]
        while drawn and not any(s >= 1 or math.isnan(s) for s in scores) and len(drawn) < n:
            new = await sampled.more(min(n - len(drawn), max(1, len(drawn) - 1)))
            if not new:
                break
            drawn = drawn + new
            scores += [check(task.question.text, sample.text) for sample in new]
        answered = [pair for pair in zip(scores, drawn, strict=True) if pair[1].answer is not None]
        best = max(answered, key=lambda pair: pair[0], default=None)
        return Answer(None if best is None else best[1].answer, "done", traces_of(drawn))

    return Strategy(solve)


def passes(question: str, trace: str) -> float:
    """1 if all steps of a trace hold, else 0."""
    return float(steps_hold(question, trace) >= 1)


def tasks_of(drawn_pool: dict[str, Any], seed: int, unit: str, budget: int) -> list[Task]:
    """One a question, all on one allowance."""
    ledger, model = MemoryLedger(), Replay(drawn_pool)
    ledger.open("bench", [Limit(unit, budget)])
    allowance = Allowance(ledger, "bench", {unit: budget})
    return [
        Task(Question(f"{i:04d}", prompt), Budgeted(model, allowance), STYLE, seed * 100_003 + i)
        for i, prompt in enumerate(drawn_pool["prompts"])
    ]


def measure(tasks: Sequence[Task], answers: dict[int, Answer], drawn_pool: dict[str, Any]) -> dict[str, float]:
    """Accuracy, what the check says of the answers, and tokens a question."""
    usage = [task.model.spend.usage for task in tasks]
    output = sum(u.output or 0 for u in usage) / len(tasks)
    right = np.array([answers[i].answer == want for i, want in enumerate(drawn_pool["answers"])])
    vouched = np.array([
        any(STYLE.read(trace) == answers[i].answer and passes(prompt, trace) for trace in answers[i].traces)
        for i, prompt in enumerate(drawn_pool["prompts"])
    ])  # fmt: skip
    return {
        "accuracy": float(right.mean()),
        "vouched": float(vouched.mean()),
        "right_if_vouched": float(right[vouched].mean()),
        "output": output,
        "all": output + sum(u.input or 0 for u in usage) / len(tasks),
        "cached": output + sum(drawn_pool["input"]) / len(tasks),
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
        "greedy": one_by_one(self_consistency(1, temperature=0.0, **cap)),
        **{f"greedy first, checked {n}": one_by_one(greedy_first(passes, n, **cap)) for n in CHECKED},
        **{f"self-consistency {n}": one_by_one(self_consistency(n, **cap)) for n in range(1, MOST + 1)},
        **{
            f"adaptive-vote risk={risk:g}": one_by_one(adaptive_vote(MOST, risk=risk, **cap))
            for risk in (0.0, 0.05, 0.1, 0.15)
        },
        **{
            f"adaptive-vote leads risk={risk:g}": one_by_one(adaptive_vote(MOST, rule="leads", risk=risk, **cap))
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
        **{f"best-of-n checked {n}, enough": one_by_one(best_of_n(checked, n, enough=1.0, **cap)) for n in CHECKED},
        "best-of-majority checked 32": one_by_one(best_of_majority(checked, 32, alpha=0.1, **cap)),
    }


SPLITS: dict[str, Callable[[Sequence[Task]], Any]] = {
    "split gains": in_total(show=gains),
    "split uniform": in_total(show=agreement, allocator=uniform, risk=0.0),
    "split uniform, decided": in_total(show=agreement, allocator=uniform),
    "split neyman": in_total(show=agreement, allocator=neyman),
}
SHARES = (0.2, 0.4)
Rows = dict[str, list[dict[str, float]]]
"""What :func:`measure` found, by strategy: one for each seed."""


def table(rows: Rows) -> list[dict[str, Any]]:
    """A row for each strategy."""
    requests = [rows[f"self-consistency {n}"] for n in range(1, MOST + 1)]
    table_rows = []
    for name, own in rows.items():
        row: dict[str, Any] = {"name": name, **{key: shown([run[key] for run in own]) for key in own[0]}}
        for key in ("output", "all"):
            row[f"{key}_share"] = float(np.mean([a[key] / b[key] for a, b in zip(own, requests[-1], strict=True)]))
        row["minus_sc32"] = minus(own, requests[-1])
        row["minus_greedy"] = minus(own, rows["greedy"])
        row["minus_one_request"] = {
            key: shown([
                run["accuracy"] - np.interp(run[key], *([n[seed][k] for n in requests] for k in ("all", "accuracy")))
                for seed, run in enumerate(own)
            ])
            for key in ("all", "cached")
        }  # fmt: skip
        table_rows.append(row)
    return table_rows


def pairs(rows: Rows) -> list[dict[str, Any]]:
    """One strategy minus another on the same samples."""
    wanted = [(f"best-of-n checked {n}, enough", f"greedy first, checked {n}") for n in CHECKED]
    for name in rows:
        if name.startswith("split gains, "):
            wanted += [(name, name.replace("split gains", other, 1)) for other in list(SPLITS)[1:]]
    wanted += [("split gains, 40% of all", f"self-consistency {n}") for n in (12, 13)]
    return [
        {"name": a, "against": b, **minus(rows[a], rows[b]),
         "all": [float(np.mean([run["all"] for run in rows[name]])) for name in (a, b)]}
        for a, b in wanted
    ]  # fmt: skip


def minus(own: Sequence[dict[str, float]], other: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of accuracies, paired by seed."""
    return shown([a["accuracy"] - b["accuracy"] for a, b in zip(own, other, strict=True)])


def shown(values: Sequence[float]) -> dict[str, float]:
    """Mean over seeds and its interval, as JSON."""
    ci = mean_ci(values)
    return {"mean": ci.mean, "low": ci.low, "high": ci.high}


def text(result: dict[str, Any]) -> str:
    """The results for people, differences in points."""

    def points(ci: dict[str, float]) -> str:
        return f"{100 * ci['mean']:+5.1f} [{100 * ci['low']:+5.1f}, {100 * ci['high']:+5.1f}]"

    lines = [f"{'':42} accuracy  minus greedy           minus one request of all  of cached"]
    lines += [
        f"{row['name']:42} {100 * row['accuracy']['mean']:8.1f}  {points(row['minus_greedy'])}  "
        f"{points(row['minus_one_request']['all'])}  {points(row['minus_one_request']['cached'])}  "
        f"output {row['output']['mean']:6.1f}  all {row['all']['mean']:6.1f}  "
        f"vouched {100 * row['vouched']['mean']:5.1f}, {100 * row['right_if_vouched']['mean']:5.1f} of them right"
        for row in result["table"]
    ]
    lines += [
        f"{row['name']} - {row['against']}: {points(row)}, all tokens {row['all'][0]:.0f} and {row['all'][1]:.0f}"
        for row in result["pairs"]
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="30 questions, 2 seeds")
    parser.add_argument("--pool", type=Path, help="folder in which to keep the sampled traces")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    questions, seeds = (30, 2) if args.quick else (300, 5)
    if args.pool is not None:
        args.pool.mkdir(parents=True, exist_ok=True)
    rows: Rows = defaultdict(list)
    for seed in range(seeds):
        drawn_pool = pool(seed, questions, args.pool)
        for name, play in strategies().items():
            tasks = tasks_of(drawn_pool, seed, "output", 10**12)
            rows[name].append(measure(tasks, asyncio.run(play(tasks)), drawn_pool))
            print(seed, name, rows[name][-1], flush=True)
        for unit in ("output", "all"):
            full = rows[f"self-consistency {MOST}"][-1][unit] * questions
            for share in SHARES if unit == "output" else (0.4,):
                for name, play in SPLITS.items():
                    tasks = tasks_of(drawn_pool, seed, unit, int(share * full))
                    key = f"{name}, {share:.0%} of {unit}"
                    rows[key].append(measure(tasks, asyncio.run(play(tasks)), drawn_pool))
                    print(seed, key, rows[key][-1], flush=True)
    result = {
        "questions": questions, "seeds": seeds, "task": "chains, 1 to 8 steps", "cap": CAP,
        "table": table(rows), "pairs": pairs(rows), "cpus": os.cpu_count(),
    }  # fmt: skip
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(text(result))


if __name__ == "__main__":
    main()
