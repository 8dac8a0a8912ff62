"""Votes, checks and early stops on the embedded thinking model, on traces that are drawn once and replayed.

    python benchmarks/search_thinker.py              # writes benchmarks/results/search_thinker.json
    python benchmarks/search_thinker.py --held-out   # renews that part of the file only
    python benchmarks/search_thinker.py --temperature 0.6 --seeds 3   # the same on cooler samples: part "cooler"
    python benchmarks/search_thinker.py --temperature 0.6 --seeds 2 --questions-seed 78 --pool FOLDER   # part "fresh"
    python benchmarks/search_thinker.py --compact    # what evidence "thinking_samples" replays; measures nothing
    python benchmarks/search_thinker.py --quick      # smoke test: 20 questions, 2 seeds of 8 samples; writes nothing

Questions are those of ``benchmarks/think.py``, traces those of ``benchmarks/thinker_pool.py`` (``--pool``; drawn
if they are not there, 40 minutes for all on a core of one's own). All strategies see the same samples: a request for n
gets the next n. Strategies run as they are, through ``Budgeted`` on a ledger, without a budget but their number of
samples. Tokens a question: ``output`` are sampled ones; ``all`` counts the prompt of every request, too; ``cached``
counts each question's prompt once, as if reading it again were free.

Part ``fresh`` has other questions, which no arm was tried on before. Log-probabilities are those of the model's own
distribution at every temperature.

Baselines: greedy decoding as it is, with low effort and without thinking; ``self-consistency n`` in one request, ten n.
A choice at random among n samples is right as often as ``self-consistency 1`` and costs what n samples cost.
``minus_greedy``, ``minus_sc32`` and ``at_equal_*`` (self-consistency in one request of as many tokens in total, the two
neighbouring n mixed in the proportion that gives them) are paired differences; intervals draw questions and seeds.

- ``checked`` looks at the calculations that a trace writes out, not at the answer (``benchmarks/think.py``).
- ``checked and sure`` takes the likelier of traces that pass that check alike.
- ``greedy votes k, then adaptive``: the greedy trace counts as k votes, then adaptive-vote's rule with samples.
- ``two greedy, then adaptive``: the answers of low effort and of the usual one, both greedy; where they agree that is
  the answer, else they have k votes each and samples decide.
- ``two greedy, checked, then n``: the usual greedy answer if low effort says the same and no calculation that it writes
  out is wrong; else n samples in one request, and the vote of those traces, greedy ones among them, whose calculations
  hold, weighted by the mean probability of their tokens. Chosen among some eighty designs (when to stop at the greedy
  answer, how many samples, how to weigh votes) on questions 0 to 149; part ``held_out`` of the file has the table on
  150 to 299, which no choice of that design looked at. These are easier (greedy decoding 77 % to 53 %).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core.usage import Usage
from budgeteer.lab.questions import QuestionSet
from budgeteer.lab.results import write_text
from budgeteer.lab.stats import crossed, crossed_weights
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import THINK, Prompt
from budgeteer.models.model import LOGPROBS, PREFILL, PREFIX, SEED, Choice, Chunk, Finish, Request, Response
from budgeteer.solve import Answer, Budgeted, Strategy, Style, Task, derive
from budgeteer.solve.styles import TaskInfo, think
from budgeteer.strategies import adaptive_vote, best_of_majority, best_of_n, length_filtered_vote, self_consistency
from budgeteer.strategies._adaptive_vote import fewest, stop_rule
from budgeteer.strategies.aggregator import weighted_majority
from budgeteer.strategies.kit.samples import Sample, Sampler, traces_of
from budgeteer.strategies.scorer import Score, Scorer, mean_logprob, programmatic
from search import greedy_first
from smollm2 import Measured, compared, shown
from think import calculations_hold
from thinker_pool import CAP, GREEDY, QUESTIONS_SEED, Trace, greedy, pool, questions_of

OUT = Path(__file__).parent / "results" / "search_thinker.json"
COMPACT = Path(__file__).parents[1] / "src" / "budgeteer" / "lab" / "evidence" / "thinking_samples.npz"
HELD_OUT = 150
"""The first question of the part on which no design was chosen."""
REQUESTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Samples of one request."""
STYLES: dict[str, dict[str, Any]] = {
    "greedy": {}, "greedy, low effort": {"effort": "low"}, "greedy, no thinking": {"on": False},
}  # fmt: skip
"""Options of the style for each greedy trace of the pool."""


@cache
def style(name: str) -> Style:
    """How a question is asked for the greedy trace of that name; what an answer says is read once."""
    made = think(TaskInfo("thinking", tags=THINK), answer_tokens=32, **STYLES[name])
    return replace(made, answer=cache(made.answer), normal=cache(made.normal))


@cache
def checked(question: str, trace: str) -> float:
    """The share of a trace's calculations that are right, worked out once for each trace."""
    return calculations_hold(question, trace)


class Replay:
    """Hands out the samples of a seed in order: a request for n of a question gets the next n, cut at its cap. At
    temperature 0 it is the greedy trace of the style that asks.

    Args:
        asked: the questions.
        traces: the greedy ones of each question.
        rows: of each question that of the seed.
    """

    name = "replay"
    capabilities = frozenset({SEED, LOGPROBS, PREFIX, PREFILL})
    tags, context = THINK, None

    def __init__(
        self, asked: QuestionSet, traces: Mapping[str, Mapping[str, Trace]], rows: Mapping[str, dict[str, Any]]
    ) -> None:
        self.of: dict[Prompt, tuple[str, str]] = {
            style(name).prompt(question.text): (question.id, name) for question in asked.questions for name in GREEDY
        }
        self.traces, self.rows, self.at = traces, rows, dict.fromkeys(rows, 0)

    def count(self, prompt: Prompt) -> int:
        question, name = self.of[prompt]
        return int(self.rows[question]["input"][name])

    async def generate(self, request: Request) -> Response:
        question, name = self.of[request.prompt]
        own = self.rows[question]
        if request.temperature == 0:
            drawn = [self.traces[question][name]] * request.n
        else:
            if name != "greedy":
                raise AssertionError("samples were drawn in one way of asking only")
            start, self.at[question] = self.at[question], self.at[question] + request.n
            drawn = own["sampled"][start : self.at[question]]
            if len(drawn) < request.n:
                raise AssertionError(f"{question} has {len(own['sampled'])} samples; a strategy wants more")
        choices = tuple(_choice(*trace, cap=request.max_tokens) for trace in drawn)
        return Response(choices, Usage(input=self.count(request.prompt), output=sum(c.tokens or 0 for c in choices)))

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        yield await self.generate(request)

    async def aclose(self) -> None:
        pass


def _choice(text: str, tokens: int, logprob: float, ended: bool, *, cap: int) -> Choice:
    if tokens > cap:
        raise AssertionError("no strategy here cuts a trace")
    return Choice(text, tokens, Finish.STOP if ended else Finish.LENGTH, (logprob,) * tokens)


def seeded_vote(names: Sequence[str], weight: int, n: int, *, risk: float = 0.1) -> Strategy:
    """Greedy answers first, which count as ``weight`` votes each; where several agree that is the answer, else samples
    up to n votes in all as :func:`adaptive_vote` draws them."""
    decided = stop_rule("overtaken", risk)

    async def solve(task: Task) -> Answer:
        first = []
        for name in names:
            asks = Sampler(Task(task.question, task.model, style(name), task.seed), max_tokens=CAP, temperature=0.0)
            first += [sample.answer for sample in await asks.more(1)]
        votes = Counter({answer: 0 for answer in first if answer is not None})
        for answer in first:
            if answer is not None:
                votes[answer] += weight
        samples = Sampler(task, max_tokens=CAP, temperature=1.0)
        agreed = len(first) > 1 and len(set(first)) == 1 and first[0] is not None
        while not agreed and (left := n - weight * len(first) - len(samples.drawn)) > 0:
            counts = sorted(votes.values(), reverse=True)
            if decided(counts, left):
                break
            for sample in await samples.more(fewest(decided, counts, left)):
                if sample.answer is not None:
                    votes[sample.answer] += 1
        best = max(votes, key=lambda answer: votes[answer], default=None)
        return samples.answer(best)

    return Strategy(solve)


def asked_as(strategy: Strategy, name: str) -> Strategy:
    """The strategy, asking as the greedy trace of that name."""

    async def solve(task: Task) -> Answer:
        return await strategy.solve(Task(task.question, task.model, style(name), task.seed))

    return Strategy(solve)


def two_greedy_checked(n: int) -> Strategy:
    """The usual greedy answer where low effort agrees and its calculations hold, else the vote of the traces that hold,
    of both and of n samples; where none holds, the usual greedy answer."""

    async def solve(task: Task) -> Answer:
        first: list[Sample] = []
        for name in ("greedy", "greedy, low effort"):
            greedily = Task(task.question, task.model, style(name), task.seed)
            first += await Sampler(greedily, max_tokens=CAP, temperature=0.0, logprobs=True).more(1)
        usual, low = first
        if usual.answer == low.answer and holds(task, usual):
            return Answer(usual.answer, "done", traces_of(first))
        samples = Sampler(task, max_tokens=CAP, temperature=1.0, logprobs=True)
        drawn = [*first, *await samples.more(n)]
        votes: dict[str, float] = defaultdict(float)
        for sample in drawn:
            if sample.answer is not None and holds(task, sample):
                votes[sample.answer] += math.exp(sample.logprob or 0.0)
        best = max(votes, key=lambda answer: votes[answer], default=usual.answer)
        return Answer(best, "done", traces_of(drawn))

    return Strategy(solve, needs=frozenset({LOGPROBS}))


def holds(task: Task, sample: Sample) -> bool:
    """Whether no calculation that a trace writes out is wrong."""
    share = checked(task.question.text, sample.text)
    return math.isnan(share) or share >= 1


def checked_and_sure() -> Scorer:
    """The share of a trace's calculations that are right (1 where there is none), of equal ones the likelier trace."""

    def bind(task: Task) -> Score:
        async def score(samples: Sequence[Sample]) -> list[float]:
            shares = [checked(task.question.text, sample.text) for sample in samples]
            return [
                (1.0 if math.isnan(share) else share) + 1e-3 * math.exp(sample.logprob or 0.0)
                for share, sample in zip(shares, samples, strict=True)
            ]

        return score

    return Scorer(bind, needs=frozenset({LOGPROBS}))


def strategies(most: int) -> dict[str, Strategy]:
    """All that is compared; ``self-consistency n`` comes on top."""
    cap: dict[str, Any] = {"max_tokens": CAP}
    scorer = programmatic(checked)
    few = [n for n in (8, 16, most) if n <= most]
    return {
        **{name: asked_as(self_consistency(1, temperature=0.0, **cap), name) for name in GREEDY},
        **{f"adaptive-vote risk={risk:g}": adaptive_vote(most, risk=risk, **cap) for risk in (0.0, 0.05, 0.1, 0.2)},
        **{
            f"adaptive-vote leads risk={risk:g}": adaptive_vote(most, rule="leads", risk=risk, **cap)
            for risk in (0.05, 0.2)
        },
        **{f"greedy votes {k}, then adaptive": seeded_vote(["greedy"], k, most) for k in (1, 3)},
        **{
            f"two greedy, then adaptive, {k} votes": seeded_vote(["greedy, low effort", "greedy"], k, most)
            for k in (1, 3)
        },
        **{
            f"best-of-n logprob, weighted {n}": best_of_n(mean_logprob(), n, aggregate=weighted_majority(), **cap)
            for n in few
        },
        f"best-of-n logprob {most}": best_of_n(mean_logprob(), most, **cap),
        f"best-of-majority logprob {most}": best_of_majority(mean_logprob(), most, alpha=0.2, **cap),
        f"length-filtered-vote {most}": length_filtered_vote(most, **cap),
        **{f"best-of-n checked {n}": best_of_n(scorer, n, **cap) for n in few},
        **{f"best-of-n checked {n}, enough": best_of_n(scorer, n, enough=1.0, **cap) for n in few},
        **{
            f"best-of-n checked, weighted {n}": best_of_n(scorer, n, aggregate=weighted_majority(), **cap)
            for n in few
        },
        **{f"best-of-majority checked {n}": best_of_majority(scorer, n, alpha=0.1, **cap) for n in few[1:]},
        **{
            f"best-of-n checked and sure {n}": best_of_n(checked_and_sure(), n, **cap)
            for n in [*few, int(0.6 * most)]  # of them the last takes 60 % of the tokens of self-consistency
        },
        **{f"greedy first, checked {n}": greedy_first(checked, n, **cap) for n in few},
        f"two greedy, checked, then {3 * most // 4}": two_greedy_checked(3 * most // 4),
    }  # fmt: skip


def play(
    strategy: Strategy,
    asked: QuestionSet,
    traces: Mapping[str, Mapping[str, Trace]],
    rows: Mapping[str, Sequence[dict[str, Any]]],
    seed: int,
) -> list[list[float]]:
    """One seed of a strategy: what :class:`smollm2.Measured` holds, of every question."""
    ledger, model = MemoryLedger(), Replay(asked, traces, {name: each[seed] for name, each in rows.items()})
    ledger.open("bench", [Limit("output", 10**12)])
    allowance = Allowance(ledger, "bench", {"output": 10**12})
    columns: dict[str, list[float]] = defaultdict(list)
    usual = style("greedy")

    async def every() -> None:
        for number, question in enumerate(asked.questions):
            task = Task(question, Budgeted(model, allowance), usual, derive(seed, question.id, number))
            answer = await strategy.solve(task)
            output, read = (float(x or 0) for x in (task.model.spend.usage.output, task.model.spend.usage.input))
            columns["right"].append(float(asked.grade(question, answer.answer)))
            columns["vouched"].append(
                float(any(
                    usual.read(trace) == answer.answer and checked(question.text, trace) >= 1
                    for trace in answer.traces
                ))
            )  # fmt: skip
            columns["output"].append(output)
            columns["all"].append(output + read)
            columns["cached"].append(output + min(read, rows[question.id][0]["input"]["greedy"]))
            columns["samples"].append(float(len(answer.traces)))

    asyncio.run(every())
    return list(columns.values())


def compact(
    asked: QuestionSet,
    traces: Mapping[str, Mapping[str, Trace]],
    rows: Mapping[str, Sequence[dict[str, Any]]],
    path: Path,
) -> None:
    """Write what :mod:`budgeteer.lab.evidence.thinking_samples` reads: of each trace its answer (the how manieth of its
    question; 255 = none), tokens, mean log-probability and what the check says, greedy traces last."""
    shape = (len(asked.questions), len(next(iter(rows.values()))), len(next(iter(rows.values()))[0]["sampled"]) + 1)
    answers, tokens = np.full(shape, 255, np.uint8), np.zeros(shape, np.uint16)
    logprobs, holds = np.zeros(shape, np.float16), np.full(shape, np.nan, np.float16)
    right, read = np.zeros((shape[0], 255), bool), np.zeros(shape[0], np.uint16)
    for number, question in enumerate(asked.questions):
        read[number] = rows[question.id][0]["input"]["greedy"]
        seen: dict[str, int] = {}
        for seed, row in enumerate(rows[question.id]):
            for at, (text, count, logprob, _) in enumerate([*row["sampled"], traces[question.id]["greedy"]]):
                answer = style("greedy").read(text)
                if answer is not None:
                    index = answers[number, seed, at] = seen.setdefault(answer, len(seen))
                    right[number, index] = float(asked.grade(question, answer) or 0) >= 1
                tokens[number, seed, at], logprobs[number, seed, at] = count, logprob
                holds[number, seed, at] = checked(question.text, text)
    np.savez_compressed(path, answers=answers, tokens=tokens, logprobs=logprobs, holds=holds, right=right, read=read)


def part_of(measured: Mapping[str, Measured], questions: slice) -> dict[str, Measured]:
    """The same of some of the questions."""
    return {
        name: Measured(*(getattr(own, field.name)[:, questions] for field in fields(own)))
        for name, own in measured.items()
    }


def analyse(measured: Mapping[str, Measured], most: int) -> list[dict[str, Any]]:
    """A row for each strategy."""
    consistency = [measured[f"self-consistency {n}"] for n in REQUESTS if n <= most]
    weights = crossed_weights(consistency[0].right.shape[1], consistency[0].right.shape[0])
    table = []
    for name, own in measured.items():
        row = compared(name, own, measured["greedy"], consistency, weights)
        row[f"minus_sc{most}"] = shown(crossed(own.right - consistency[-1].right, weights))
        table.append(row)
    return table


def text(rows: Sequence[dict[str, Any]], most: int) -> str:
    """The table for people, differences in points."""

    def points(ci: dict[str, float] | None) -> str:
        if ci is None:
            return f"{'-':>21}"
        return f"{100 * ci['mean']:+5.1f} [{100 * ci['low']:+5.1f}, {100 * ci['high']:+5.1f}]"

    keys = ("minus_greedy", f"minus_sc{most}", "at_equal_all", "at_equal_cached")
    lines = [f"{'':34}  right  " + "  ".join(f"{key:>21}" for key in keys) + "  output    all  of SC  vouched, right"]
    lines += [
        f"{row['name']:34}  {100 * row['accuracy']['mean']:5.1f}  "
        + "  ".join(points(row[key]) for key in keys)
        + f"  {row['output']:6.0f} {row['all']:6.0f}  {row['all_share']:5.2f}  {row['vouched']:7.2f}, "
        f"{row['right_if_vouched'] or 0:5.2f}"
        for row in rows
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke test; the numbers mean nothing")
    parser.add_argument("--questions", type=int, default=300, help="the first so many (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--samples", type=int, default=32, help="of a question and seed (default %(default)s)")
    parser.add_argument("--pool", type=Path, default=Path("runs/thinker_pool"), help="traces (default %(default)s)")
    parser.add_argument("--compact", action="store_true", help=f"write {COMPACT.name} of the package and stop")
    parser.add_argument("--held-out", action="store_true", help="measure that part; the file's table stays as it is")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samples (default %(default)s)")
    parser.add_argument(
        "--questions-seed", type=int, default=QUESTIONS_SEED, help="of the questions (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, help=f"results file (default: {OUT.name} beside this file; none if quick)")
    args = parser.parse_args(argv)
    other = args.temperature != 1 or args.questions_seed != QUESTIONS_SEED
    if other and (args.compact or args.held_out):
        parser.error("--compact and --held-out are of samples at temperature 1, of the usual questions")
    n, seeds, most = (20, 2, 8) if args.quick else (args.questions, args.seeds, args.samples)
    half = n // 2 if args.quick else HELD_OUT
    folder = args.pool / "quick" if args.quick else args.pool
    every = questions_of(20 if args.quick else 300, seed=args.questions_seed)
    asked = replace(every, questions=every.questions[:n])
    traces = greedy(every, folder)
    rows = pool(asked, range(seeds), most, folder, temperature=args.temperature)
    if args.compact:
        compact(asked, traces, rows, args.out or COMPACT)
        return 0
    counts = [k for k in REQUESTS if k <= most]
    compared = {f"self-consistency {k}": self_consistency(k, max_tokens=CAP) for k in counts} | strategies(most)
    chosen = f"two greedy, checked, then {3 * most // 4}"
    few = [*GREEDY, *(f"self-consistency {k}" for k in counts), f"greedy first, checked {most}", chosen]
    measured: dict[str, Measured] = {}
    for name in few if args.held_out else compared:
        played = [play(compared[name], asked, traces, rows, seed) for seed in range(seeds)]
        measured[name] = Measured(*(np.array(column) for column in zip(*played, strict=True)))
        print(name, f"{measured[name].right.mean():.3f}", file=sys.stderr, flush=True)
    out = args.out or (None if args.quick else OUT)
    result: dict[str, Any] = {
        "model": "the embedded thinking model, bfloat16", "task": "thinking", "questions": n, "seeds": seeds,
        "samples": most, "cap": CAP, "temperature": 1.0,
    }  # fmt: skip
    if out is not None and out.is_file() and (args.held_out or other):
        result = json.loads(out.read_text(encoding="utf-8"))
    parts = {"all": slice(0, n), "chosen_on": slice(0, half), "held_out": slice(half, n)}
    if other:
        fresh = args.questions_seed != QUESTIONS_SEED
        wanted = {"all": parts["all"]} if fresh else parts
        tables = {label: analyse(part_of(measured, questions), most) for label, questions in wanted.items()}
        result["fresh" if fresh else "cooler"] = {
            "temperature": args.temperature, "questions": n, "seeds": seeds, "samples": most, "half": half, **tables,
        }  # fmt: skip
        for label, table in tables.items():
            print(f"\n{label}\n{text(table, most)}")
        if out is not None:
            write_text(json.dumps(result, indent=1) + "\n", out)
        return 0
    if not args.held_out:
        result["table"] = analyse(measured, most)
        print(text(result["table"], most))
    designed = {name: measured[name] for name in few}
    result["held_out"] = {"chosen": chosen}
    for label, questions in parts.items():
        table = analyse(part_of(designed, questions), most)
        result["held_out"][label] = {
            "first": questions.start,
            "questions": questions.stop - questions.start,
            "table": table,
        }
        print(f"\n{label}\n{text(table, most)}")
    if out is not None:
        write_text(json.dumps(result, indent=1) + "\n", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
