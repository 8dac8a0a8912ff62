"""Pipelines of several stages, each asked of a model with a number of samples, and what they are worth on questions.

A pipeline is a TOML file. A way is how a stage can be asked: a model, a style, and what a token of it weighs against
others (such as its parameters). A stage has a prompt, whose fields are the fields of a question's row and the answers
of earlier stages, the ways and the numbers of samples that may be chosen for it, and about how many tokens an answer
takes. Several samples of a stage vote. The last stage's answer is the pipeline's.

    [ways.quick]
    model = "thinker"
    style = "think:on=false"
    [ways.slow]
    model = "thinker"

    [[stages]]
    name = "sum"
    prompt = "{first}"
    ways = ["quick", "slow"]
    samples = [1, 4]
    tokens = 40
"""

from __future__ import annotations

import asyncio
import json
import re
import string
import tomllib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer import verify
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.joint.kit import Propose, Space, Trial
from budgeteer.models.chat import Chat, Message
from budgeteer.models.model import PREFIX, Model, Request
from budgeteer.solve import Style, derive
from budgeteer.solve.styles import TaskInfo, choose, style_of
from budgeteer.strategies.aggregator import majority
from budgeteer.strategies.kit.samples import read

AT_ONCE = 8
"""Questions under way at the same time."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a stage can be asked.

    Attributes:
        model: as ``--model`` names it.
        style: as ``--style`` names it; None = the one that fits the model.
        weight: what one token costs, beside the tokens of other ways.
    """

    model: str
    style: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of a pipeline. Its options are its ways, each with each number of samples.

    Attributes:
        name: under which later prompts name its answer.
        prompt: with fields in braces: those of a question's row, and the names of earlier stages.
        ways: names of the ways that may be chosen.
        samples: numbers of samples that may be chosen; several samples vote.
        tokens: that one sample takes, about; the cost of an option is computed from it.
        max_tokens: cap of one sample.
    """

    name: str
    prompt: str
    ways: tuple[str, ...]
    samples: tuple[int, ...] = (1, 2, 4, 8)
    tokens: int = 64
    max_tokens: int = 256


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stages in their order, and the ways that they name.

    Attributes:
        ways: name -> way.
        stages: the answer of the last one is the answer of the pipeline.
    """

    ways: Mapping[str, Way]
    stages: tuple[Stage, ...]

    @property
    def options(self) -> list[tuple[str, int]]:
        """(way, samples) of every option; the stages share one list, and the cost says where one does not have it."""
        pairs = {(way, n) for stage in self.stages for way in stage.ways for n in stage.samples}
        return sorted(pairs, key=lambda pair: (list(self.ways).index(pair[0]), pair[1]))

    def costs(self, prompts: Sequence[float]) -> F64:
        """[N, K]: ``weight (prompt + samples * tokens)``, the prompt read once; 1e300 for what a stage does not offer.

        Args:
            prompts: [N] mean tokens of a stage's prompts.
        """
        cost = np.full((len(self.stages), len(self.options)), 1e300)
        for i, (stage, prompt) in enumerate(zip(self.stages, prompts, strict=True)):
            for j, (way, n) in enumerate(self.options):
                if way in stage.ways and n in stage.samples:
                    cost[i, j] = self.ways[way].weight * (prompt + n * stage.tokens)
        return cost

    @property
    def family(self) -> I64:
        """[K] number of the way of each option."""
        return np.array([list(self.ways).index(way) for way, _ in self.options])

    def named(self, choice: Sequence[int]) -> dict[str, str]:
        """Stage -> ``way x samples``.

        >>> stages = (Stage("a", "{q}", ("w",), (1, 3)),)
        >>> Pipeline({"w": Way("reasoner")}, stages).named([1])
        {'a': 'w x 3'}
        """
        return {
            stage.name: "{} x {}".format(*self.options[option])
            for stage, option in zip(self.stages, choice, strict=True)
        }


def load(path: Path) -> Pipeline:
    """Read a pipeline.

    Raises:
        InvalidInput: the file cannot be read, or something in it is missing, unknown or out of range.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        ways = {name: Way(**way) for name, way in data.pop("ways").items()}
        stages = tuple(_stage(stage) for stage in data.pop("stages"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"cannot read a pipeline in {path}: {error}; it has tables ways and stages") from error
    for stage in stages:
        numbers = (*stage.samples, stage.tokens, stage.max_tokens)
        if not stage.ways or not stage.samples or not all(isinstance(n, int) and n >= 1 for n in numbers):
            raise InvalidInput(f"{path}: stage {stage.name!r} needs ways, and samples and tokens of 1 or more")
        unknown = [way for way in stage.ways if way not in ways]
        if unknown:
            raise InvalidInput(f"{path}: stage {stage.name!r} names a way {unknown[0]!r}; there are {', '.join(ways)}")
    if not stages or len({stage.name for stage in stages}) < len(stages) or data:
        raise InvalidInput(f"{path}: give stages of different names and ways, and nothing else")
    if not all(isinstance(way.weight, int | float) and 0 < way.weight < 1e12 for way in ways.values()):
        raise InvalidInput(f"{path}: a way's weight is above 0")
    return Pipeline(ways, stages)


def _stage(table: dict[str, Any]) -> Stage:
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return Stage(**given)


def rows_of(path: Path, pipeline: Pipeline) -> list[dict[str, str]]:
    """The questions of a file of JSON lines: rows with an ``answer`` and the fields that the prompts name.

    Raises:
        InvalidInput: the file cannot be read, or a row lacks a field.
    """
    rows: list[dict[str, str]] = []
    named = {stage.name for stage in pipeline.stages}
    fields = {part for stage in pipeline.stages for _, part, _, _ in string.Formatter().parse(stage.prompt) if part}
    try:
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            row = {key: str(value) for key, value in json.loads(line).items()}
            missing = sorted((fields - named | {"answer"}) - row.keys())
            if missing:
                raise InvalidInput(f"{path}, line {number}: no {', '.join(missing)}")
            rows.append(row)
    except (OSError, ValueError, AttributeError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"cannot read questions in {path}: {error}; give JSON lines") from error
    if not rows:
        raise InvalidInput(f"{path} has no questions")
    return rows


@dataclass(slots=True)
class Runner:
    """Runs pipelines on questions; what was asked once is not asked again.

    Attributes:
        pipeline: with the options to choose from.
        models: those of the ways, by name.
        seed: of the samples.
        run: runs a coroutine; clients of endpoints need the same event loop for all calls (``asyncio.Runner().run``).
        tokens: sampled so far.
    """

    pipeline: Pipeline
    models: Mapping[str, Model]
    seed: int = 0
    run: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run
    tokens: int = 0
    _asked: dict[tuple[str, int, str, int], str] = field(default_factory=dict)

    def style(self, way: str) -> Style:
        """How a way is asked."""
        own = self.pipeline.ways[way]
        model, asked = self.models[own.model], TaskInfo("stages", True)
        return style_of(own.style or choose(model, asked.by(model)), asked.by(model))

    def score(self, choice: Sequence[int], rows: Sequence[Mapping[str, str]]) -> float:
        """The share of the questions that a pipeline answers right.

        Args:
            choice: [N] the option of each stage, an index into ``pipeline.options``.
            rows: the questions, as :func:`rows_of` reads them.
        """
        return float(np.mean(self.run(self._scores(choice, rows))))

    async def _scores(self, choice: Sequence[int], rows: Sequence[Mapping[str, str]]) -> list[float]:
        gate = asyncio.Semaphore(AT_ONCE)

        async def limited(row: Mapping[str, str]) -> float:
            async with gate:
                return await self._graded(choice, row)

        return list(await asyncio.gather(*map(limited, rows)))

    async def _graded(self, choice: Sequence[int], row: Mapping[str, str]) -> float:
        known, answer = dict(row), ""
        for stage, option in zip(self.pipeline.stages, choice, strict=True):
            way, n = self.pipeline.options[option]
            text = stage.prompt.format_map({**known, "answer": ""})
            key = (way, n, text, stage.max_tokens)
            if key not in self._asked:
                self._asked[key] = await self._vote(*key)
            answer = known[stage.name] = self._asked[key]
        return verify.auto(answer, row["answer"])

    async def _vote(self, way: str, n: int, text: str, most: int) -> str:
        """The answer of most of n samples; one sample is greedy; ``""`` if there is none."""
        style, model = self.style(way), self.models[self.pipeline.ways[way].model]
        prompt, seed = style.prompt(text), derive(self.seed, way, text)
        response = await model.generate(Request(prompt, most, n, 1.0 if n > 1 else 0.0, style.stop, seed))
        self.tokens += response.usage.output or 0
        off = isinstance(prompt, Chat) and prompt.thinking.on is False  # then a trace begins behind the closing tag
        answers = [
            read(style, choice.text if not off else style.close + choice.text.split(style.close)[-1], choice.finish)
            for choice in response.choices
        ]
        ranked = majority()(answers, [float("nan")] * len(answers))
        return ranked[0].answer if ranked else ""


OBSERVED = """Known of such searches: 1. Each stage has a model that suits it best. 2. More samples help up to a \
point, and then no more or even harm. 3. What one stage gets changes what is best for the others."""
GUIDELINES = """What do the trials show? Answer with at most five short guidelines for the next choices: which model \
suits which stage, where more samples helped, and what is still to be tried."""


def agent(
    model: Model,
    pipeline: Pipeline,
    *,
    run: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run,
    max_tokens: int = 1024,
) -> Propose:
    """An agent that is a language model. It is told the options, their costs and trials (the first, best and last
    ones), writes guidelines of what they show, as the paper's does, and then, told these too, answers with JSON lists
    of option numbers. From an answer that cannot be read comes no proposal.

    Args:
        model: that proposes; its tokens are not charged.
        pipeline: that is searched.
        run: runs a coroutine, as in :class:`Runner`.
        max_tokens: cap of an answer.
    """

    def propose(space: Space, trials: Sequence[Trial], wanted: int, rng: np.random.Generator) -> list[list[int]]:
        shown = trials if len(trials) <= 12 else [*trials[:2], *sorted(trials, key=lambda t: t.loss)[:5], *trials[-5:]]
        lines = [
            f"A pipeline has {len(pipeline.stages)} stages. Give each an option, within a budget of {space.budget:g}."
        ]
        for stage, costs in zip(pipeline.stages, space.cost, strict=True):
            offers = [
                f"{j} = {way} x {n} (cost {costs[j]:g})"
                for j, (way, n) in enumerate(pipeline.options)
                if costs[j] < 1e300
            ]
            lines.append(f"Stage {stage.name}: " + ", ".join(offers))
        lines += ["Tried so far (options, share of wrong answers):"]
        lines += [f"{list(trial.choice)}: {trial.loss:.3f}" for trial in shown]
        lines += [OBSERVED]
        lines += ["Guidelines for the next choices, of what the trials show:", told([*lines, GUIDELINES])]
        return proposals(told([*lines, f"Answer with a JSON list of {wanted} new lists of options, and nothing else."]))

    def told(lines: Sequence[str]) -> str:
        text = "\n".join(lines)
        prompt = text if PREFIX in model.capabilities else Chat((Message("user", text),))
        return str(run(model.generate(Request(prompt, max_tokens, temperature=0.0))).choices[0].text).strip()

    return propose


def proposals(text: str) -> list[list[int]]:
    """The lists of whole numbers in a text.

    >>> proposals("I try [[0, 2], [1, 3]].")
    [[0, 2], [1, 3]]
    """
    return [json.loads(part) for part in re.findall(r"\[\s*\d+(?:\s*,\s*\d+)*\s*\]", text)]


def evaluation(
    runner: Runner, rows: Sequence[Mapping[str, str]], on_trial: Callable[[Sequence[int], float], object]
) -> Callable[[Any], tuple[float, F64]]:
    """The loss of a pipeline for a joint method: the share of wrong answers. Its gradient is 0 everywhere, so it is for
    methods that follow none.

    Args:
        runner: of the pipeline.
        rows: the questions.
        on_trial: called with the choice and its share of right answers.
    """

    def loss(y: Any) -> tuple[float, F64]:
        choice = np.asarray(y).argmax(axis=1).tolist()
        right = runner.score(choice, rows)
        on_trial(choice, right)
        return 1 - right, np.zeros(np.shape(y))

    return loss
