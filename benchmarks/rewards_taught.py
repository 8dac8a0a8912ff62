"""The policies of benchmarks/rewards.py that know their tags: supervised training on the start's own traces.

The papers do so before their reinforcement learning (ThinkDial's mixtures, AdaCtrl's cold start), or begin with models
that read. Here all four dials get the same: as many examples, steps and the same learning rates. An example is the
longest right trace that the start itself wrote for a prompt, up to its answer, with some of its repeated steps left
out; ThinkDial cuts a trace as well, and has it answered anew, since a cut chain has no answer. Before it stands:

- ``l1``: the number of the tokens that are left.
- ``e1``, ``thinkdial``: a share of the usual thinking; none of the repeated steps are left for the least share, all of
  them for the largest, and even parts between.
- ``adactrl``: ``[Easy]`` without repeated steps for a prompt that is mostly solved, ``[Hard]`` with all for another.

What is said decides at each step whether it is said again. Where the first ones went one way, the trace itself tells
how it goes on, and nothing is left to learn of what was said: in a mean over all tokens this is one token in 40, and a
policy of this size does not find it in hundreds of steps. So it is first trained on these choices alone, with traces
cut behind the third one, and then on whole traces, half of whose weight is at their choices.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from budgeteer.core.plan import ENDED, right
from budgeteer.engine.llama import save
from budgeteer.lab import pool as pools
from budgeteer.lab.results import write_text
from budgeteer.lab.run import rewards
from budgeteer.models.chat import EASY_TAG, EFFORTS, HARD_TAG
from budgeteer.models.policy import LlamaPolicy, load_policy
from budgeteer.rl.sampler import sample

QUESTIONS, SAMPLES, SEED, EXAMPLES, BATCH = 1024, 8, 8800, 2048, 32
CHOICES, WHOLE = (160, 3e-3), (64, 1e-3)
"""Steps and learning rate of the training on choices alone, and of that on whole traces."""
EASY = 0.625
"""Share of right traces above which AdaCtrl calls a prompt easy."""


class Trace(NamedTuple):
    """A right trace that ended by itself: its token ids, and how many of them think."""

    tokens: list[int]
    thinking: int


class Example(NamedTuple):
    """What is said before the prompt, the prompt, what begins the answer, the trace, and the places of its choices: of
    tokens that say a step again or go on."""

    before: str
    prompt: str
    begun: str
    tokens: list[int]
    choices: list[int]


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


def thinned(text: str, share: float) -> str:
    """A trace up to its answer, with a share of its repeated steps, evenly spread.

    >>> thinned("1+2=3;?1+2=3;3+4=7;?3+4=7;?1+2=3;</think>7\\n?1+2=3;", 0.5)
    '1+2=3;3+4=7;?3+4=7;</think>7'
    """
    thinking, close, rest = text.partition("</think>")
    kept, seen = [], 0
    for step in thinking.split(";")[:-1]:
        if step.startswith("?"):
            seen += 1
            if int(seen * share) == int((seen - 1) * share):
                continue
        kept.append(step + ";")
    return "".join(kept) + close + rest.partition("\n")[0]


def thinning(policy: LlamaPolicy, asked: Asked, said: Sequence[tuple[str, str, float]]) -> list[Example]:
    """An example for each (what is said, what begins the answer, share of the repeated steps)."""
    (longest,) = policy.decode([max(asked.traces, key=lambda trace: trace.thinking).tokens])
    (semicolon,) = policy.encode([";"])[0][1:]
    made = []
    for before, begun, share in said:
        tokens = [*policy.encode([thinned(longest, share)])[0][1:], policy.markers.eos]
        choices = [i for i in range(1, tokens.index(policy.markers.think_end) + 1) if tokens[i - 1] == semicolon]
        made.append(Example(before.format(tokens=len(tokens)), asked.prompt, begun, tokens, choices))
    return made


def said_to(dial: str, asked: Asked) -> list[tuple[str, str, float]]:
    """What a dial's examples of a prompt are: what is said, what begins the answer, share of the repeated steps."""
    if dial == "adactrl":
        return [("", EASY_TAG, 0.0) if asked.solved > EASY else ("", HARD_TAG, 1.0)]
    words = {
        "l1": ["{tokens}: "] * 4,
        "e1": [f"{n}%: " for n in (25, 50, 75, 100)],
        "thinkdial": [f"{name}: " for name in EFFORTS],
    }[dial]
    return [(word, "", share) for word, share in zip(words, np.linspace(0, 1, len(words)).tolist(), strict=True)]


def examples(policy: LlamaPolicy, asked: Sequence[Asked], dial: str) -> list[Example]:
    """EXAMPLES of them, drawn from all that there are, again where there are fewer."""
    made = [example for each in asked for example in thinning(policy, each, said_to(dial, each)) if example.choices]
    return random.Random(f"{dial}-{SEED}").choices(made, k=EXAMPLES)


def fit(
    policy: LlamaPolicy, batches: Iterable[tuple[Tensor, Tensor]], rate: float, steps: int, warmup: int = 1
) -> None:
    """Train a policy on the tokens of texts, with a rate that falls to 0 in a straight line.

    Args:
        policy: is changed.
        batches: (tokens [n, t], weight of each token but the first [n, t - 1]), one a step.
        rate: of the first step behind the warm-up.
        steps: at which the rate would be 0.
        warmup: steps in which it rises.
    """
    optimiser = torch.optim.AdamW(policy.model.parameters(), lr=rate, betas=(0.9, 0.95))
    for step, (tokens, weight) in enumerate(batches):
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / warmup) * (1 - step / steps)
        logits = policy.model.logits(policy.model(tokens[:, :-1]))
        losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        optimiser.zero_grad()
        ((losses * weight.flatten()).sum() / weight.sum()).backward()
        optimiser.step()


def taught(dial: str, start: Path, folder: Path, cap: int, quick: bool = False) -> Path:
    """The folder of the start after supervised training on a dial's examples. Made once.

    Args:
        dial: reward.
        start: folder of the policy.
        folder: for the result.
        cap: of a trace.
        quick: few questions and steps, which teach nothing.
    """
    if not (folder / "tokenizer.json").exists():
        policy = load_policy(start)
        kept = kept_traces(policy, cap, 32 if quick else QUESTIONS, folder.with_name("traces.json"))
        made = examples(policy, kept, dial)
        for (steps, rate), make in ((CHOICES, of_choices), (WHOLE, of_whole)):
            steps = 2 if quick else steps
            fit(policy, (make(policy, part) for part in islice(parts(made), steps)), rate, steps, warmup=20)
        save(policy.model, folder)
        for name in ("tokenizer_config.json", "tokenizer.json"):
            shutil.copy(start / name, folder / name)
    return folder


def parts(made: Sequence[Example]) -> Iterator[list[Example]]:
    """Batches of examples of about one length, in random order, without end."""
    ordered = sorted(made, key=lambda example: len(example.prompt) + len(example.tokens))
    split = [ordered[i : i + BATCH] for i in range(0, len(ordered), BATCH)]
    rng = random.Random(SEED)
    while True:
        yield from rng.sample(split, len(split))


def of_choices(policy: LlamaPolicy, part: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """The traces cut behind their third choice, the choices and what begins the answer learnt alone."""
    cut = [e._replace(tokens=e.tokens[: e.choices[:3][-1] + 1], choices=e.choices[:3]) for e in part]
    return batch(policy, cut, others=0.0)


def of_whole(policy: LlamaPolicy, part: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Whole traces, half of the weight of each at its choices."""
    return batch(policy, part, others=1.0)


def batch(policy: LlamaPolicy, part: Sequence[Example], others: float) -> tuple[Tensor, Tensor]:
    """(tokens [b, t], loss weights [b, t - 1]): what is said and asked is read, the rest is learnt.

    Args:
        policy: encodes.
        part: b examples.
        others: weight of each token of a trace, beside what its choices have: together that of as many tokens.
    """
    asked = policy.encode([example.before + example.prompt for example in part])
    begun = [ids[1:] for ids in policy.encode([example.begun for example in part])]
    rows = [(a, b, [*b, *example.tokens]) for a, b, example in zip(asked, begun, part, strict=True)]
    width = max(len(a) + len(c) for a, _, c in rows)
    tokens, weight = torch.full((len(rows), width), 2), torch.zeros(len(rows), width - 1)
    for i, ((a, b, c), example) in enumerate(zip(rows, part, strict=True)):
        tokens[i, : len(a) + len(c)] = torch.tensor([*a, *c])
        first = len(a) - 1
        weight[i, first : first + len(b)] = 1
        weight[i, first + len(b) : first + len(c)] = others
        for place in example.choices:
            weight[i, first + len(b) + place] += len(example.tokens) / len(example.choices)
    return tokens, weight
