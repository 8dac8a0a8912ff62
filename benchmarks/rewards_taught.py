"""The policies of benchmarks/rewards.py that know their tags: supervised training on the start's own traces.

The papers do so before their reinforcement learning (ThinkDial's mixtures, AdaCtrl's cold start), or begin with models
that read. Here all four dials get the same: as many examples, steps and the same learning rate. An example is a right
trace that the start itself wrote, behind what is said to it:

- ``l1``: the number of its tokens, told from what it took.
- ``e1``, ``thinkdial``: a share of the usual thinking, behind it the trace of the prompt whose thinking is nearest to
  that share of its right traces' mean. ThinkDial cuts one trace and has it answered anew; a chain that is cut here has
  no answer, so traces are chosen.
- ``adactrl``: ``[Easy]`` before the shortest right trace of a prompt that is mostly solved, ``[Hard]`` before the
  longest one of another.
- ``adaptive-deep``: the same tags before the shortest and the longest trace of each prompt, with the words that ask for
  that kind and without: the tag is the token by which a kind is chosen.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from budgeteer.core.plan import ENDED, right
from budgeteer.engine.llama import save
from budgeteer.lab import pool as pools
from budgeteer.lab.heldout import rewards
from budgeteer.lab.results import write_text
from budgeteer.models.chat import EASY_TAG, EFFORTS, HARD_TAG
from budgeteer.models.policy import LlamaPolicy, load_policy
from budgeteer.rl.sampler import sample

QUESTIONS, SAMPLES, SEED, EXAMPLES, BATCH, STEPS, LR = 1024, 8, 8800, 2048, 64, 96, 1e-3
EASY = 0.625
"""Share of right traces above which AdaCtrl calls a prompt easy."""


class Trace(NamedTuple):
    """A right trace that ended by itself: its token ids, and how many of them think."""

    tokens: list[int]
    thinking: int


class Example(NamedTuple):
    """What is said before the prompt, the prompt, what begins the answer, and the trace."""

    before: str
    prompt: str
    begun: str
    tokens: list[int]


class Asked(NamedTuple):
    """A prompt, the share of its traces that are right, and these."""

    prompt: str
    solved: float
    traces: list[Trace]


def own_traces(policy: LlamaPolicy, cap: int, questions: int = QUESTIONS) -> list[Asked]:
    """The right traces of each prompt, of those with two or more."""
    pool = pools.build("real", SEED, questions, 1)
    prompts = policy.encode([item.prompt for item in pool.train])
    rollouts, _ = sample(
        policy.model, [item.key for item in pool.train], prompts, np.full(len(pool.train), SAMPLES),
        max_tokens=cap, markers=policy.markers, seed=SEED,
    )  # fmt: skip
    rows = [t[:n].tolist() for t, n in zip(rollouts.tokens, rollouts.length, strict=True)]
    good = right(rewards(policy, pool.environment, [pool.train[g] for g in rollouts.group], rows))
    kept = good & (rollouts.status == ENDED) & (rollouts.closed > 0)
    found = []
    for g, item in enumerate(pool.train):
        at = np.flatnonzero((rollouts.group == g) & kept)
        if len(at) > 1:
            traces = [Trace(rows[i], int(rollouts.closed[i]) - 1) for i in at.tolist()]
            found.append(Asked(item.prompt, float(good[rollouts.group == g].mean()), traces))
    return found


def kept_traces(policy: LlamaPolicy, cap: int, questions: int, path: Path) -> list[Asked]:
    """The traces, which are drawn once for all dials and kept in a file."""
    if not path.exists():
        write_text(json.dumps([each._asdict() for each in own_traces(policy, cap, questions)]), path)
    kept = json.loads(path.read_text())
    return [Asked(**{**each, "traces": [Trace(*trace) for trace in each["traces"]]}) for each in kept]


def of_l1(asked: Asked) -> list[Example]:
    """Every trace with its own length."""
    return [Example(f"{len(trace.tokens)}: ", asked.prompt, "", trace.tokens) for trace in asked.traces]


def of_shares(said: Sequence[tuple[str, float]]) -> Callable[[Asked], list[Example]]:
    """For each thing said the trace that is nearest to its share of the usual thinking."""

    def of(asked: Asked) -> list[Example]:
        usual = np.mean([trace.thinking for trace in asked.traces])
        nearest = [(text, min(asked.traces, key=lambda t: abs(t.thinking - share * usual))) for text, share in said]
        return [Example(text, asked.prompt, "", trace.tokens) for text, trace in nearest]

    return of


def of_adactrl(asked: Asked) -> list[Example]:
    """A tag and a trace of its kind."""
    traces = sorted(asked.traces, key=lambda trace: len(trace.tokens))
    tag, trace = (EASY_TAG, traces[0]) if asked.solved > EASY else (HARD_TAG, traces[-1])
    return [Example("", asked.prompt, tag, trace.tokens)]


def of_kinds(asked: Asked) -> list[Example]:
    """Both kinds, asked for and not."""
    traces = sorted(asked.traces, key=lambda trace: len(trace.tokens))
    kinds = (("short: ", EASY_TAG, traces[0].tokens), ("long: ", HARD_TAG, traces[-1].tokens))
    return [Example(said, asked.prompt, tag, tokens) for ask, tag, tokens in kinds for said in (ask, "")]


BUILDERS: dict[str, Callable[[Asked], list[Example]]] = {
    "l1": of_l1,
    "e1": of_shares([(f"{n}%: ", n / 100) for n in (25, 50, 75, 100)]),
    "thinkdial": of_shares([(f"{name}: ", share) for name, share in EFFORTS.items()]),
    "adactrl": of_adactrl,
    "adaptive-deep": of_kinds,
}


def examples(asked: Sequence[Asked], dial: str, mixed: bool = False) -> list[Example]:
    """EXAMPLES of them, drawn from all that there are, again where there are fewer; mixed = with each other's tags."""
    made = [example for each in asked for example in BUILDERS[dial](each)]
    draw = random.Random(f"{dial}-{SEED}")
    found = draw.choices(made, k=EXAMPLES)
    if mixed:
        others = draw.sample(found, k=EXAMPLES)
        found = [one._replace(before=o.before, begun=o.begun) for one, o in zip(found, others, strict=True)]
    return found


def fit(policy: LlamaPolicy, batches: Iterable[tuple[Tensor, Tensor]], rate: float, steps: int) -> None:
    """Train a policy on the tokens of texts, with a rate that falls to 0 in a straight line.

    Args:
        policy: is changed.
        batches: (tokens [n, t], weight of each token but the first [n, t - 1]), one a step.
        rate: of the first step.
        steps: at which the rate would be 0.
    """
    optimiser = torch.optim.AdamW(policy.model.parameters(), lr=rate, betas=(0.9, 0.95))
    for step, (tokens, weight) in enumerate(batches):
        optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
        logits = policy.model.logits(policy.model(tokens[:, :-1]))
        losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        optimiser.zero_grad()
        ((losses * weight.flatten()).sum() / weight.sum()).backward()
        optimiser.step()


def taught(dial: str, start: Path, folder: Path, cap: int, quick: bool = False, mixed: bool = False) -> Path:
    """The folder of the start after supervised training on a dial's examples. Made once.

    Args:
        dial: reward.
        start: folder of the policy.
        folder: for the result.
        cap: of a trace.
        quick: few questions and two steps, which teach nothing.
        mixed: each example has the tag of another.
    """
    if not (folder / "tokenizer.json").exists():
        policy = load_policy(start)
        kept = kept_traces(policy, cap, 32 if quick else QUESTIONS, folder.with_name("traces.json"))
        made = examples(kept, dial, mixed)
        steps = 2 if quick else STEPS
        starts = [step * BATCH % EXAMPLES for step in range(steps)]
        fit(policy, (batch(policy, made[first : first + BATCH]) for first in starts), LR, STEPS)
        save(policy.model, folder)
        for name in ("tokenizer_config.json", "tokenizer.json"):
            shutil.copy(start / name, folder / name)
    return folder


def batch(policy: LlamaPolicy, part: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens [b, t], loss weights [b, t - 1]): what is said and asked is read, the rest is learnt."""
    asked = policy.encode([example.before + example.prompt for example in part])
    begun = [ids[1:] for ids in policy.encode([example.begun for example in part])]
    rows = [(a, [*b, *example.tokens]) for a, b, example in zip(asked, begun, part, strict=True)]
    width = max(len(a) + len(c) for a, c in rows)
    tokens, weight = torch.full((len(rows), width), 2), torch.zeros(len(rows), width - 1)
    for i, (a, c) in enumerate(rows):
        tokens[i, : len(a) + len(c)] = torch.tensor([*a, *c])
        weight[i, len(a) - 1 : len(a) + len(c) - 1] = 1
    return tokens, weight
