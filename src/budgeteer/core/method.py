"""What the registry knows of one method."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from budgeteer.core.spec import blanked

PARTS: dict[str, str] = {
    "allocator": "splits a budget over items that compete for it",
    "online": "decides on each request of a stream before it sees the next",
    "joint": "chooses an option a group for one loss of all groups together",
    "rounding": "makes whole choices out of fractions",
    "matching": "assigns resources to requests that may come",
    "router": "assigns tokens to experts",
    "allowance": "is the right to spend: shared and delegated, never copied",
    "steer": "ends, forces or bends rows while they are decoded",
    "meter": "turns what was consumed into units of one kind of budget",
    "strategy": "answers one question with what a budget leaves",
    "many": "answers many questions from one budget",
    "aggregator": "makes one answer out of several samples",
    "scorer": "says how good a sample is",
    "verifier": "says whether an answer is the reference answer",
    "reward": "makes what advantages are made of from the verifier's score and more",
    "advantage": "says how much better a rollout, or a token of it, is than was to be expected",
    "importance": "weighs rollouts or tokens in the update, beside the advantage",
    "ratio": "keeps an update close to the policy that sampled",
    "stream": "says which prompts come next",
    "carry": "lets rollouts go on in a later step",
    "variant": "says what rollouts are asked with besides their prompts",
    "schedule": "moves a setting of a run over the share of it that is done",
    "weight": "says how much each token of a rollout weighs in the loss",
    "recipe": "spends a training step's tokens and learns from them",
    "tuning": "makes training examples out of a model's own traces",
    "policy": "saves tokens of the gateway's requests",
    "style": "says how a model is asked and how its answers are read",
    "task": "makes problems and verifies their answers",
    "score": "says how much each entry of a KV cache is worth",
    "split": "says how many entries of a KV cache each layer and head keeps",
    "reducer": "makes messages fit a budget of tokens",
    "route": "says which model answers a request",
    "rest": "says what becomes of the entries of a KV cache that are not kept",
}
"""Part -> what a method of it does."""

ITSELF = frozenset({"joint", "rounding", "matching", "allowance", "many", "verifier", "advantage", "weight", "style"})
"""Parts of which a method's path names the method itself; of the others it names a factory that makes it."""

LATER = {"task": ("size", "seed", "family")}
"""Part -> arguments of its factories that do not come from the options of a name but from the rest of a command."""

TAKES = {"scorer": "scorer", "critic": "scorer", "aggregate": "aggregator", "allocator": "allocator"}
"""Argument of a factory that takes a part -> which part."""


SUMS = {"reward": "budgeteer.rl.reward.sums:from_text"}
"""Part -> path of the function that makes one method of several, written ``NAME+NAME`` or ``NAME+0.5*NAME``."""
_SUM = re.compile(r"^[^:]*\*|^\s*\+|\+\s*(?:$|(?:\d[\d.]*\s*\*\s*)?[A-Za-z])")


class Read(NamedTuple):
    """An argument that a command line gives as the place that it is read from.

    Attributes:
        takes: what the option takes, in words.
        example: a value that always works.
        path: of the function (name of the method, what was given) -> the argument.
    """

    takes: str
    example: str
    path: str


READ = {
    "head": Read(
        "a FILE that budgeteer heads train wrote, the FOLDER of a model with heads beside it, or reasoner: that of the "
        "embedded reasoner",
        "reasoner",
        "budgeteer.engine.head:head_of",
    ),
    "traces": Read(
        "a FILE of traces, OUT.run/traces.jsonl of budgeteer solve --traces --out OUT, or none",
        "none",
        "budgeteer.strategies._cot_x:traces_of",
    ),
    "device": Read(
        "a FILE that budgeteer profile device wrote, or a published profile: jetson-orin-1.5b, jetson-orin-8b, "
        "jetson-orin-14b",
        "jetson-orin-1.5b",
        "budgeteer.models.device:device_of",
    ),
    "encode": Read(
        "words (TF-IDF), or a FOLDER or name of a sentence encoder of transformers",
        "words",
        "budgeteer.context.encode:encode_of",
    ),
    "rerank": Read(
        "words (TF-IDF), or a FOLDER or name of a cross-encoder or a sentence encoder of transformers",
        "words",
        "budgeteer.context.encode:rerank_of",
    ),
    "router": Read(
        "low, mid or high, or a FILE that budgeteer.context.tier_router.save wrote",
        "low",
        "budgeteer.context._budget_mem:router_of",
    ),
    "configure": Read(
        "none, or a FILE that budgeteer.context.search_agent.save wrote",
        "none",
        "budgeteer.context.search_agent:configure_of",
    ),
    "surprise": Read(
        "thinker, or a FOLDER or name of a causal model of transformers",
        "thinker",
        "budgeteer.context._self_information:surprise_of",
    ),
    "attribute": Read(
        "rarity, or a FOLDER or name of an encoder of BERT's build",
        "rarity",
        "budgeteer.context.attribution:attribute_of",
    ),
    "summarise": Read(
        "first (the first sentence of every line), or package.module:function of a function "
        "(what is dropped, question, tokens) -> summary",
        "first",
        "budgeteer.context._summary:summarise_of",
    ),
}
"""Argument of a factory that is read from a file -> how."""

SLOTS: dict[str, dict[str, str]] = {
    "recipe": {
        "allocator": "allocator",
        "reward": "reward",
        "advantage": "advantage",
        "importance": "importance",
        "token_weight": "weight",
        "ratio": "ratio",
        "stream": "stream",
        "carry": "carry",
        "variant": "variant",
        "temperature": "schedule",
        "max_tokens": "schedule",
        "lr": "schedule",
        "steer": "steer",
    },
    "score": {"split": "split", "rest": "rest"},
    "strategy": {"steer": "steer"},
    "many": {"steer": "steer"},
}
"""Part -> slots that every method of it has beside the options of its factory -> the part that fills each."""


CLASSES: dict[str, str] = {
    "static selection": "token level: what is kept is chosen after a prompt",
    "dynamic eviction": "token level: chosen again while tokens are generated; what is dropped is gone",
    "dynamic reading": "token level: nothing is dropped, and each generated token reads some of it",
    "layer budgets": "token level: how much each layer keeps",
    "head budgets": "token level: how much each head keeps",
    "merging": "token level: what is dropped goes into what is kept, within a layer",
    "fixed precision": "token level: all in the same few bits",
    "mixed precision": "token level: some as they are, some in few bits",
    "outliers": "token level: numbers that stand out are spread before they are quantised",
    "low rank": "token level: fewer numbers an entry, by projections that are learnt",
    "memory tiers": "system level: entries lie in the memory of the CPU and move to the model's",
}
"""Class of a method of a KV cache -> its level and what methods of it do.

The classes are those of "A Survey on Large Language Model Acceleration based on KV Cache Management", arXiv 2412.19442:
selection (static; dynamic with and without permanent eviction), budget allocation, merging, quantisation and low-rank
decomposition of its token level; of its system level what is here. Its model level is about how models are built.
"""


class Citation(NamedTuple):
    """The paper that a method is from."""

    title: str
    arxiv: str


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        name: what the command line calls it; unique among the methods of its part.
        part: one of :data:`PARTS`.
        path: ``"package.module:factory"``, or of the method itself (:data:`ITSELF`).
        decides: what it decides, in one line.
        citation: its paper, or None.
        evidence: module that tests its claim, or None: the name of one of ``budgeteer.lab.evidence``, or the whole path
            of one of another package, such as ``"my_package.evidence"``.
        arguments: of its factory, for the shared checks, where it has no defaults or slow ones: a mapping, or the path
            of a function that makes one. The name of a part stands for the part, as on the command line
            (``{"scorer": "verifier"}``).
        traits: what the shared checks and commands have to know: ``"menu"``, an allocator of menus; ``"ordered"``, one
            to which the order of the items is a preference, or a recipe with such a one; ``"gradient"``, a joint method
            that follows the gradient of its loss; ``"tools"``, a strategy that calls the task's tools.
        objective: path of a function ``(items, units) -> value`` of what an allocator, or that of a recipe, says that
            it maximises, written from its docstring and not from its code; ``""`` where it states no value of its own.
        classes: of :data:`CLASSES`; of a score, split or rest of a KV cache.
    """

    name: str
    part: str
    path: str
    decides: str
    citation: Citation | None = None
    evidence: str | None = None
    arguments: Mapping[str, Any] | str = field(default_factory=dict, hash=False)
    traits: tuple[str, ...] = ()
    objective: str = ""
    classes: tuple[str, ...] = ()


def is_sum(part: str, text: str) -> bool:
    """Whether a text names several methods of a part that are to be added up, or one with a weight.

    >>> is_sum("reward", "laser+pear"), is_sum("reward", "laser:bonus=1e+1"), is_sum("steer", "answered+truncate")
    (True, False, False)
    """
    return part in SUMS and _SUM.search(blanked(text)) is not None
