"""What a budget of the KV cache costs: tasks in the manner of RULER, one prefill for all methods and budgets.

An answer is right where each of its tokens is the model's first choice after those before it: what greedy decoding
would have written. With the question *known*, the choice is made after context and question; *unknown*, after the
context, and the question comes later, as the next turn does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, mean, median
from typing import Any

import numpy as np
import torch

from budgeteer.cache import BudgetedCache, selection
from budgeteer.cache.prefill import Prefill
from budgeteer.cache.size import parsed
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.cache_answers import Answered, Arm, answered_by, answers, now
from budgeteer.lab.cache_report import FULL
from budgeteer.lab.needles import Sample
from budgeteer.lab.stats import mean_ci, paired, paired_shares, wilson
from budgeteer.models.load import load_model
from budgeteer.models.smollm2 import smollm2
from budgeteer.models.thinker import thinker
from budgeteer.rl.device import choose_device


def check(methods: Sequence[str], budgets: Sequence[str], length: int) -> None:
    """Refuse what cannot be, before anything is computed.

    Raises:
        InvalidInput: a budget that is smaller than what a method always keeps of a text of ``length`` tokens
            (budgets in bytes are looked at by :func:`evaluate`), or a name that stands twice.
        UnknownName: no such method.
    """
    require_once(methods, [selection(method).name for method in methods])
    sizes = [parsed(budget) for budget in budgets]
    require_once(
        budgets,
        [("tokens" if size.kind in ("all", "cache") else size.kind, size.amount, size.fraction) for size in sizes],
    )
    for method in methods:
        selected = selection(method)
        for budget in budgets:
            given = parsed(budget)
            if given.kind == "bytes":
                continue
            size = given.of(length)
            if size < length and size < selected.protected(size):
                raise InvalidInput(
                    f"{budget} of {length} tokens leaves {size} a head, and {method} always keeps "
                    f"{selected.protected(size)}; give a larger budget or longer texts"
                )


def require_once(names: Sequence[str], meant: Sequence[Hashable]) -> None:
    """Refuse a name of what another one means, too, since it would be computed twice.

    Raises:
        InvalidInput: two of ``meant`` are equal.
    """
    if len(set(meant)) < len(meant):
        raise InvalidInput(f"{', '.join(names)}: one stands twice; name each once")


def opened(
    spec: str, device: str = "cpu", *, tokens: int = 0, what: str = ""
) -> tuple[Any, Callable[[str, bool], list[int]]]:
    """A model in transformers, and what turns a text into tokens; True = the text begins the sequence.

    Args:
        spec: ``smollm2``, ``thinker`` or ``hf:FOLDER``.
        device: such as ``cuda``; ``auto`` = CUDA when there is one.
        tokens: that it is to read one behind the other, at most.
        what: these are, for the error.

    Raises:
        InvalidInput: another kind of model, whose cache is out of reach, no such device here, or more tokens than the
            model was made for, of which it says nothing that means something; from its configuration, before it is
            loaded, where that is in a folder.
    """
    if spec == "smollm2":  # by this name load_model takes llama.cpp, whose cache is its own
        spec = f"hf:{smollm2()}"
    if spec != "thinker" and not spec.startswith("hf:"):
        raise InvalidInput(
            f"{spec!r} does not run in transformers, so that its cache is out of reach; "
            "give smollm2, thinker or hf:FOLDER"
        )
    _require_positions(_configuration(spec), tokens, what)
    loaded: Any = load_model(spec, device=str(choose_device(device)))
    _require_positions(loaded.model.config, tokens, what)

    def encode(text: str, first: bool) -> list[int]:
        # a text may be longer than the model reads: what is long here is cut into texts
        ids: list[int] = loaded.tokenizer(text, add_special_tokens=first, verbose=False)["input_ids"]
        return ids[:-1] if first and len(ids) > 1 and ids[-1] in loaded.ends else ids

    return loaded.model, encode


def _configuration(spec: str) -> Any:
    """Of a model in a folder; None where it cannot be read, which loading the model then says."""
    from transformers import AutoConfig

    folder = thinker() if spec == "thinker" else Path(spec.removeprefix("hf:"))
    try:
        return AutoConfig.from_pretrained(folder) if (folder / "config.json").is_file() else None
    except Exception:  # transformers raises whatever its parts raise
        return None


def _positions(config: Any) -> int | None:
    """How many tokens a model was made for."""
    found: int | None = config and getattr(config.get_text_config(), "max_position_embeddings", None)
    return found


def _require_positions(config: Any, tokens: int, what: str) -> None:
    most = _positions(config)
    if most is not None and tokens > most:
        raise InvalidInput(
            f"{what} takes {tokens:,} tokens, and the model reads {most:,} at most; give a smaller --length"
        )


def possible(model: Any, methods: Sequence[str], length: int = 0) -> list[str]:
    """The methods that a model can have.

    Not all models show how they rotate their queries, let a prompt of ``length`` tokens be read twice, or can do so.
    """
    found, most = [], _positions(model.config)
    for method in methods:
        try:
            cache = BudgetedCache(model, "100%", method)
        except InvalidInput:
            continue
        if most is None or not cache.selected.score.replays or 2 * length <= most:
            found.append(method)
    return found


def evaluate(
    model: Any,
    encode: Callable[[str, bool], list[int]],
    samples: Sequence[Sample],
    methods: Sequence[str],
    budgets: Sequence[str],
    *,
    known: Sequence[bool] = (True, False),
    seed: int = 0,
    timed: bool = True,
) -> Iterator[Answered]:
    """Answer samples with a full cache and with each method and budget.

    Args:
        model: a decoder of transformers.
        encode: ``(text, first) -> ids``; ``first`` = at the beginning of a text, where some tokenizers add a token.
        samples: texts and questions.
        methods: scores of the registry, with options.
        budgets: as a cache has them.
        known: whether the question is known when the choice is made; both by default.
        seed: of methods that draw at random.
        timed: read each cache by itself, so that the time of its tokens is known. False = those of all budgets of a
            method are read as one batch, which took 0.7 of the time where it was tried.

    Raises:
        InvalidInput: as :func:`check`, for the shortest prompt, before anything is computed.
    """
    device = next(model.parameters()).device
    texts = [(encode(each.context, True), encode(each.question, False), _pieces(encode, each)) for each in samples]
    lengths = {len(context) + knows * (len(question) - 1) for context, question, _ in texts for knows in known}
    for length in sorted(lengths):
        check(methods, budgets, length)
    _check_bytes(model, methods, budgets, lengths)
    chosen = [(FULL, ("100%",), selection("recent")), *((s.name, budgets, s) for s in map(selection, methods))]
    for sample, (context, question, pieces) in zip(samples, texts, strict=True):
        for knows in known:
            prompt, rest = ([*context, *question[:-1]], question[-1:]) if knows else (context, question)
            began = now(device)
            read = Prefill(model, torch.tensor([prompt], device=device))
            reading = now(device) - began
            full: tuple[float, float | None] | None = None
            for name, sizes, selected in chosen:
                together = not timed and selected.score.depth is None
                for some in [sizes] if together else [[size] for size in sizes]:
                    arms = [Arm.of(read, BudgetedCache(model, each, selected, seed=seed), reading) for each in some]
                    for each, arm, said in zip(some, arms, answers(model, arms, rest, pieces, device), strict=True):
                        full = full or (arm.seconds, said.token)
                        yield answered_by(sample.task, name, each, knows, arm, said, full, pieces)


def _check_bytes(model: Any, methods: Sequence[str], budgets: Sequence[str], lengths: Collection[int]) -> None:
    """As :func:`check`, for budgets in bytes, which need to know how large the entries of a model are."""
    given = [budget for budget in budgets if parsed(budget).kind == "bytes"]
    if not given:
        return
    read = Prefill(model, torch.zeros(1, 2, dtype=torch.long, device=next(model.parameters()).device))
    for method in methods:
        cache = read.into(BudgetedCache(model, "100%", method))
        for budget in given:
            for length in lengths:
                cache.require(budget, length)


def _pieces(encode: Callable[[str, bool], list[int]], sample: Sample) -> list[list[int]]:
    """Tokens of an answer: parts at even places, the commas between them at odd ones."""
    return [encode(piece, False) for piece in re.findall(",|[^,]+", sample.answer)]


def table(answered: Sequence[Answered]) -> list[dict[str, Any]]:
    """A row for each method, budget and way to ask: shares of right answers, with intervals.

    ``tasks`` has the mean share of the parts of an answer that are right, by task, and ``losses`` the mean of ``lost``
    below, by task. ``right`` is over all samples with
    Wilson's 95 % interval, ``fewer`` the share of the full cache that is right less this one, paired by sample
    (:func:`budgeteer.lab.stats.paired_shares`), ``below`` the same of the shares of an answer's parts, with a paired t
    interval, ``lost`` the mean difference of log-probabilities to the full cache on
    the same samples, nats a token, with a paired t interval. ``heads``, ``places`` and ``end`` are means over the
    samples, ``prompt`` and ``token`` medians, None where nothing was measured.
    """
    rows = []
    tasks = list(dict.fromkeys(each.task for each in answered))
    arms = list(dict.fromkeys((each.known, each.method, each.budget) for each in answered))
    full = {knows: [e for e in answered if e.known == knows and e.method == FULL] for knows, *_ in arms}
    for knows, method, budget in arms:
        mine = [each for each in answered if (each.known, each.method, each.budget) == (knows, method, budget)]
        by_task = {task: [e.found for e in mine if e.task == task] for task in tasks}
        lost = [(e.task, f.logprob - e.logprob) for e, f in zip(mine, full[knows], strict=True)]
        rows.append(
            {
                "method": method,
                "budget": budget,
                "known": knows,
                "samples": len(mine),
                "right": _interval(wilson(sum(each.right for each in mine), len(mine))),
                "fewer": _interval(paired_shares([e.right for e in full[knows]], [e.right for e in mine])),
                "below": _interval(paired([e.found for e in full[knows]], [e.found for e in mine])),
                "tasks": {task: sum(found) / len(found) for task, found in by_task.items()},
                "losses": {task: fmean(less for of, less in lost if of == task) for task in tasks},
                "lost": _interval(paired([e.logprob for e in full[knows]], [each.logprob for each in mine])),
                "kept": mean_ci([each.kept for each in mine]).mean,
                "bytes": round(mean_ci([each.bytes for each in mine]).mean),
                "peak": round(mean_ci([each.peak for each in mine]).mean),
                "cold": round(mean_ci([each.cold for each in mine]).mean),
                "end": _of([each.end for each in mine], mean),
                "prompt": _of([each.prompt for each in mine], median),
                "token": _of([each.token for each in mine], median),
                "heads": np.mean([each.heads for each in mine], axis=0).round(4).tolist(),
                "places": np.mean([each.places for each in mine], axis=0).round(4).tolist(),
            }
        )
    return rows


def _interval(estimate: Any) -> dict[str, float]:
    return {name: value for name, value in asdict(estimate).items() if name != "n"}


def _of(numbers: Sequence[float | None], middle: Callable[[list[float]], float]) -> float | None:
    """The middle of the numbers that are there, to four places; None if there is none."""
    there = [number for number in numbers if number is not None]
    return round(middle(there), 4) if there else None
