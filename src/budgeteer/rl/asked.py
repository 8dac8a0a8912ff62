"""Requests that are more than prompts: what variants add to them, and answers that are begun already. NumPy only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, Plan
from budgeteer.rl.recipe import SOLUTION, Beginnings, Recipe, Variants
from budgeteer.rl.rollouts import Rollouts

if TYPE_CHECKING:
    from budgeteer.rl.control import Control

_POINTS, _PROMPTS, _ROWS = 11, 32, 4
"""Points of the run at which a variant is tried, on so many of the longest prompts, with so many rows of each."""

Encode = Callable[[Sequence[str]], Sequence[Sequence[int]]]
"""Texts -> token ids of each."""
Ask = Callable[[Sequence[str], Sequence[int]], Sequence[Sequence[int]]]
"""(texts, indices of the training prompts that they stand for) -> token ids of each."""


class Wording(NamedTuple):
    """The texts of a run's prompts, and how a text becomes tokens: what variants are made with.

    Attributes:
        texts: of the training prompts.
        ask: texts in the places of prompts' own -> token ids, as those of the prompts were made: with a
            beginning-of-sequence token or a chat template, if there is one, and whatever else a prompt consists of.
        write: texts within an answer -> token ids, nothing added.
        solutions: steps of a worked solution of each training prompt, written as the model writes them; None = nobody
            has them.
    """

    texts: Sequence[str]
    ask: Ask
    write: Encode
    solutions: Sequence[tuple[str, ...]] | None = None


def require_wording(recipe: Recipe, wording: Wording | None) -> None:
    """Refuse a recipe whose variant needs texts or solutions that nobody gives.

    Raises:
        InvalidInput: says what is missing, and how it is given.
    """
    if recipe.branch is not None and recipe.branch.text and wording is None:
        raise InvalidInput(
            f"recipe {recipe.name!r} ends the thinking of its rollouts with a text, and this trainer knows tokens "
            "only; give it wording= (`budgeteer train` does), or choose a recipe without a branch"
        )
    if wording is None and any(term.texts for term in recipe.beside):
        raise InvalidInput(
            f"recipe {recipe.name!r} has a loss on texts, and this trainer knows tokens only; give it wording= "
            "(`budgeteer train` does), or choose a recipe without it"
        )
    if recipe.variant is None:
        return
    if wording is None:
        raise InvalidInput(
            f"recipe {recipe.name!r} has a variant, which changes the texts of prompts, and this trainer knows tokens "
            "only; give it wording= (`budgeteer train` does), or choose a recipe without a variant"
        )
    if unknown := sorted(set(recipe.variant.needs) - {SOLUTION}):
        raise InvalidInput(f"the variant of recipe {recipe.name!r} needs {', '.join(unknown)}; it may need {SOLUTION}")
    if SOLUTION in recipe.variant.needs and not (wording.solutions and all(wording.solutions)):
        raise InvalidInput(
            f"the variant of recipe {recipe.name!r} shows the first part of a worked solution, and not every problem "
            "of this task has one; chains and the pools have them; in a file of your own, give each row a field "
            "solution, a list of the texts of its steps"
        )


@dataclass(frozen=True, slots=True)
class RoundRequests:
    """k requests of a round.

    Attributes:
        of: [k] index of each request's prompt into those of the round, ascending.
        units: [k] rollouts of each.
        prompts: k prompts as token ids; None = the round's own.
        heads: k arrays of token ids at the head of the answer, behind which the sampler goes on.
        versions: k arrays: when each of these was sampled; -1 = never, it is of a hint.
        columns: of rollouts, name -> [k].
        logprobs: k arrays: log-probabilities of the heads' tokens that are to be trained on, NaN elsewhere; None =
            the heads are only read.
        learnt: the heads' tokens that were sampled are to be trained on all the same, at log-probabilities that the
            trainer measures (:func:`budgeteer.rl.logprobs.of_heads`).
        spoken: k texts in the places of the prompts' own, None where it is the round's own; () = everywhere.
    """

    of: I64
    units: I64
    prompts: Sequence[tuple[int, ...] | None]
    heads: Sequence[I64]
    versions: Sequence[I64]
    columns: Mapping[str, Any] = field(default_factory=dict)
    logprobs: Sequence[F64] | None = None
    learnt: bool = False
    spoken: Sequence[str | None] = ()

    def requests(self, keys: Sequence[str], own: Sequence[tuple[int, ...]]) -> tuple[list[str], list[Any], I64]:
        """Keys, prompts with the heads of the answers as token ids, and rollouts of each request.

        Args:
            keys, own: of the round's prompts.
        """
        of = self.of.tolist()
        prompts = [own[g] if prompt is None else prompt for g, prompt in zip(of, self.prompts, strict=True)]
        heads = [tuple(head.tolist()) for head in self.heads]
        return [keys[g] for g in of], [p + head for p, head in zip(prompts, heads, strict=True)], self.units

    def whole(self, sampled: Rollouts, keys: tuple[str, ...]) -> Rollouts:
        """What the sampler gave for :meth:`requests`, as rollouts of the round's prompts, with the columns."""
        rows = {name: np.asarray(values)[sampled.group] for name, values in self.columns.items()}
        begun = sampled.begun(keys, self.of, self.heads, self.versions, self.logprobs)
        return replace(begun, more={**sampled.more, **rows})


def continuing(beginnings: Beginnings, of: I64) -> RoundRequests:
    """The requests that continue rows of earlier steps, one each.

    Args:
        of: index of each row's prompt into those of the round, ascending.
    """
    lengths = beginnings.length.tolist()

    def rows_of(values: Any) -> list[Any]:
        return [values[i, :length] for i, length in enumerate(lengths)]

    heads, versions = rows_of(beginnings.tokens), rows_of(beginnings.version)
    units = np.ones(len(of), np.int64)
    return RoundRequests(of, units, [None] * len(of), heads, versions, logprobs=rows_of(beginnings.logprobs))


def varied(variants: Variants, units: I64, picked: I64, wording: Wording, by: str) -> RoundRequests:
    """The requests of a round with a variant; rows of a prompt that are asked alike are one request.

    Args:
        variants: of the rows.
        units: [m] rollouts of each prompt of the round.
        picked: [m] indices of these prompts among the wording's.
        wording: what the prompts say.
        by: name of the recipe, for errors.

    Raises:
        InvalidInput: another number of texts or entries of a column than there are rows, or a text that is none.
    """
    prompt, n = np.repeat(np.arange(len(units)), units), int(units.sum())
    given = {name: getattr(variants, name) or ("",) * n for name in ("prefix", "suffix", "hint")}
    for name, values in (given | dict(variants.columns)).items():
        if len(values) != n:
            raise InvalidInput(
                f"the variant of recipe {by!r} gave {len(values)} of {name} for {n} rows; give one a row"
            )
        if name in ("prefix", "suffix", "hint") and not all(isinstance(text, str) for text in values):
            raise InvalidInput(f"the variant of recipe {by!r} gave a {name} that is no text; give texts")
    columns = {name: np.asarray(values) for name, values in variants.columns.items()}
    asked = list(zip(prompt.tolist(), *given.values(), *columns.values(), strict=True))
    first: dict[tuple[Any, ...], int] = {}
    for row, request in enumerate(asked):
        first.setdefault(request, row)
    units_of = Counter(asked)
    rows = list(first.values())
    of = prompt[rows]
    changed = [row for row in rows if given["prefix"][row] or given["suffix"][row]]
    places = [int(picked[prompt[row]]) for row in changed]
    texts = [
        given["prefix"][row] + wording.texts[place] + given["suffix"][row]
        for row, place in zip(changed, places, strict=True)
    ]
    prompts = dict(zip(changed, wording.ask(texts, places) if texts else [], strict=True))
    spoken = dict(zip(changed, texts, strict=True))
    hinted = [row for row in rows if given["hint"][row]]
    heads = dict(zip(hinted, wording.write([given["hint"][row] for row in hinted]) if hinted else [], strict=True))
    begun = [np.array(heads.get(row, ()), np.int64) for row in rows]
    return RoundRequests(
        of,
        np.array([units_of[request] for request in first], np.int64),
        [tuple(map(int, prompts[row])) if row in prompts else None for row in rows],
        begun,
        [np.full(len(head), -1) for head in begun],
        {name: values[rows] for name, values in columns.items()},
        spoken=[spoken.get(row) for row in rows],
    )


def tried(control: Control, prompts: Sequence[Sequence[int]]) -> Iterator[tuple[I64, RoundRequests]]:
    """What the recipe's variant asks at points of the whole run: indices [m] of the longest prompts, which are those
    that may not fit, and their requests. Nothing, where there is no variant, or one that shows solutions.

    Args:
        control: of the run, before its first step.
        prompts: token ids of all.
    """
    recipe, wording = control.recipe, control.wording
    if recipe.variant is None or wording is None or SOLUTION in recipe.variant.needs:
        return
    length = np.array([len(ids) for ids in prompts], np.int64)
    picked: I64 = np.argsort(-length, kind="stable")[:_PROMPTS]
    items = control.items_of(picked)
    view = control.view(items, Plan(items.keys, np.full(len(items), _ROWS), 0.0))
    for point, spent in enumerate(np.linspace(0, 1, _POINTS).tolist()):
        rng = np.random.default_rng((control.config.seed, point, 7))
        variants = recipe.variant.vary(control.variant_state, replace(view, spent=spent), rng)
        yield picked, varied(variants, view.plan.units, picked, wording, recipe.name)


def longest_asked(control: Control, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The prompts' token ids, the longest of them as the recipe's variant makes them at most, hints included.

    A variant draws what it says and changes it over the run, so that it is tried.

    Args:
        control: of the run, before its first step.
        prompts: token ids of all.
    """
    made = [list(ids) for ids in prompts]
    for picked, asked in tried(control, prompts):
        keys, own = [control.keys[i] for i in picked.tolist()], [tuple(prompts[i]) for i in picked.tolist()]
        for g, ids in zip(asked.of.tolist(), asked.requests(keys, own)[1], strict=True):
            if len(ids) > len(made[picked[g]]):
                made[picked[g]] = list(ids)
    return made
