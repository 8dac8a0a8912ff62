"""The benchmarks as tasks of inspect_ai: ``inspect eval budgeteer/overflow --model openai/gpt-5-mini``.

inspect_ai finds them by its entry points. The budget is inspect's own (``--token-limit``, ``--max-tokens``) or that of
a model of :mod:`budgeteer.adapters.inspect_ai`.
"""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import Any

from budgeteer.core.errors import MissingExtra
from budgeteer.lab.bench import overflow as overflows
from budgeteer.lab.bench.vending import Call, State, World, apply, view, worth
from budgeteer.lab.bench.vending_run import WINDOW, called, rules, situation
from budgeteer.lab.tasks.schedule import Schedules, faults, read

try:
    from inspect_ai import Task, task
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
    from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, accuracy, mean, metric, scorer, stderr
    from inspect_ai.solver import Generate, Solver, TaskState, generate, solver
except ImportError as error:
    raise MissingExtra("inspect_ai", "inspect-ai") from error


@task
def overflow(cap: int = 5000, each: int = 6) -> Task:
    """BenchOverflow: lengths of the answers to nine kinds of plain prompts, and the share that ends at the cap."""
    samples = [
        Sample(prompt.text, id=f"{prompt.kind}-{i}", metadata={"kind": prompt.kind, "origin": prompt.origin})
        for i, prompt in enumerate(overflows.prompts(each))
    ]
    return Task(samples, solver=generate(), scorer=lengths(cap), config=GenerateConfig(max_tokens=cap))


@metric
def saturated() -> Metric:
    """Cap saturation: share of the answers that end at the cap."""

    def measure(scores: list[SampleScore]) -> float:
        return sum(bool((one.score.metadata or {}).get("saturated")) for one in scores) / max(1, len(scores))

    return measure


@scorer(metrics=[mean(), stderr(), saturated()])
def lengths(cap: int) -> Scorer:
    """Tokens of an answer, as the provider counts them; the cap where it cut the answer."""

    async def score(state: TaskState, target: Target) -> Score:
        output = state.output
        tokens, cut = (output.usage.output_tokens if output.usage else 0), output.stop_reason == "max_tokens"
        return Score(value=cap if cut else min(cap, tokens), metadata={"saturated": cut or tokens >= cap})

    return score


@task
def schedule(size: int = 100, seed: int = 0, **options: Any) -> Task:
    """R-ConstraintBench: plans under constraints; options are those of the task ``schedule``."""
    samples = [
        Sample(item.prompt, target=str(item.answer), id=item.key, metadata={"orders": item.level, **item.entry})
        for item in Schedules(size=size, seed=seed, **options).items
    ]
    return Task(samples, solver=generate(), scorer=all_kept())


@scorer(metrics=[accuracy(), stderr()])
def all_kept() -> Scorer:
    """1 for a plan on the last line that keeps all constraints; the explanation names the kinds that it breaks."""

    async def score(state: TaskState, target: Target) -> Score:
        instance = state.metadata["instance"]
        lines = [line for line in state.output.completion.splitlines() if line.strip()]
        starts = read(lines[-1] if lines else "", len(instance.durations))
        if starts is None:
            return Score(value=0, explanation="no plan on the last line")
        broken = faults(instance, starts)
        return Score(value=int(not broken), explanation=", ".join(broken) or "all kept")

    return score


@task
def vending(days: int = 120, seeds: int = 5, calls: int = 40) -> Task:
    """Vending-Bench: a machine run for many days; the score is the net worth in dollars."""
    samples = [Sample("Run the vending machine.", id=f"seed-{seed}", metadata={"seed": seed}) for seed in range(seeds)]
    return Task(samples, solver=running(days, calls), scorer=net_worth())


@solver
def running(days: int, calls: int) -> Solver:
    """Asks the model for one call of a tool at a time, until the days are over or a limit of inspect ends it."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        world, now, text, today = World.drawn(state.metadata["seed"]), State(), "Day 0.", 0
        said: list[Any] = []
        while now.day < days and not now.ruined:
            call = Call("wait")
            if today < calls:
                seen = view(world, now, text)
                asked = ChatMessageUser(content=situation(seen))
                told = [ChatMessageSystem(content=rules(seen)), *said[-2 * WINDOW :], asked]
                output = await get_model().generate(told)
                said += [ChatMessageUser(content=text), output.message]
                call = called(output.completion)
            outcome = apply(world, now, call)
            today = today + 1 if outcome.state.day == now.day else 0
            now, text = outcome.state, outcome.text
            state.store.set("worth", worth(world, now))
            state.store.set("ruined", now.ruined)
        return state

    return solve


@scorer(metrics=[mean(), stderr()])
def net_worth() -> Scorer:
    """Net worth in dollars when the run ended."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=float(state.store.get("worth", 0.0)), metadata={"ruined": state.store.get("ruined", False)})

    return score
