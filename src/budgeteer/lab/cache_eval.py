"""What a budget of the KV cache costs: tasks in the manner of RULER, one prefill for all methods and budgets.

An answer is right where each of its tokens is the model's first choice after those before it: what greedy decoding
would have written. With the question *known*, the choice is made after context and question; *unknown*, after the
context, and the question comes later, as the next turn does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from budgeteer.cache import BudgetedCache, selection
from budgeteer.cache.prefill import Prefill
from budgeteer.cache.size import parsed
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.cache_places import places
from budgeteer.lab.cache_report import FULL
from budgeteer.lab.needles import Sample
from budgeteer.lab.stats import mean_ci, paired, wilson
from budgeteer.models.inside import argument_of
from budgeteer.models.load import load_model
from budgeteer.models.smollm2 import smollm2
from budgeteer.models.thinker import thinker
from budgeteer.rl.device import choose_device

LONG = 32
"""Tokens of an answer above which it is read one after the other, as it would be generated."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One sample with one cache.

    Attributes:
        task, method, budget: of it.
        known: whether the question was known when the choice was made.
        right: the whole answer is what the model would write.
        logprob: of the answer, nats a token.
        kept: entries that were held when the answer began, of those of a full cache.
        bytes: that were held then.
        peak: of the bytes while the prompt was read.
        cold: bytes in cold memory, beside ``bytes``. Where entries are retrieved, all of these are of the answer's end.
        parts: whether each part of the answer is right, commas apart, given those before it; none = it is one part.
        heads: for each layer and head, entries that were held when the answer began, of those of a full cache.
        end: entries that were held at the answer's end, of those of a full cache; None where it was read at once.
        prompt: time of reading the prompt and choosing, over that with the full cache.
        token: time of a token behind the prompt, over that with the full cache; None where all came at once.
        places: for each layer and part of the text, entries that were held, as :func:`.cache_places.places` has them.
    """

    task: str
    method: str
    budget: str
    known: bool
    right: bool
    logprob: float
    kept: float
    bytes: int
    peak: int
    cold: int = 0
    parts: tuple[bool, ...] = ()
    heads: Sequence[Sequence[float]] = ()
    end: float | None = None
    prompt: float | None = None
    token: float | None = None
    places: Sequence[Sequence[float]] = ()

    @property
    def found(self) -> float:
        """Share of the answer's parts that are right."""
        return sum(self.parts) / len(self.parts) if self.parts else float(self.right)


def check(methods: Sequence[str], budgets: Sequence[str], length: int) -> None:
    """Refuse what cannot be, before anything is computed.

    Raises:
        InvalidInput: a budget that is smaller than what a method always keeps of a text of ``length`` tokens
            (budgets in bytes are looked at by :func:`evaluate`), or a name that stands twice.
        UnknownName: no such method.
    """
    require_once(methods, [selection(method).name for method in methods])
    sizes = [parsed(budget) for budget in budgets]
    require_once(budgets, [(size.kind == "bytes", size.amount, size.fraction) for size in sizes])
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
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

    Raises:
        InvalidInput: as :func:`check`, for the shortest prompt, before anything is computed.
    """
    device = next(model.parameters()).device
    texts = [(encode(each.context, True), encode(each.question, False), _pieces(encode, each)) for each in samples]
    lengths = {len(context) + knows * (len(question) - 1) for context, question, _ in texts for knows in known}
    for length in sorted(lengths):
        check(methods, budgets, length)
    _check_bytes(model, methods, budgets, lengths)
    names = [selection(method).name for method in methods]
    arms = [(FULL, "100%", "recent"), *((name, budget, name) for name in names for budget in budgets)]
    for sample, (context, question, pieces) in zip(samples, texts, strict=True):
        answer = [token for piece in pieces for token in piece]
        for knows in known:
            prompt, rest = ([*context, *question[:-1]], question[-1:]) if knows else (context, question)
            began = _now(device)
            read = Prefill(model, torch.tensor([prompt], device=device))
            reading = _now(device) - began
            full: tuple[float, float | None] | None = None
            for name, budget, method in arms:
                cache = BudgetedCache(model, budget, method, seed=seed)
                began = _now(device)
                read.into(cache)
                whole = 0.0 if cache.selected.score.depth is not None else reading  # else it was read anew
                chosen = whole + _now(device) - began + read.saved
                held, heads, where = cache.account(), cache.heads(), places(cache)
                said = _answer(model, cache, rest, answer, device)
                if cache.selected.rest.renew is not None:
                    held, heads, where = cache.account(), cache.heads(), places(cache)
                full = full or (chosen, said.token)
                yield Answered(
                    sample.task,
                    name,
                    budget,
                    knows,
                    all(said.first),
                    said.logprob / len(answer),
                    held.share,
                    held.bytes,
                    held.peak_bytes,
                    held.cold_bytes,
                    _parts(pieces, said.first),
                    heads,
                    said.end,
                    chosen / full[0],
                    said.token / full[1] if said.token and full[1] else None,
                    where,
                )


def _now(device: torch.device) -> float:
    """Seconds of a clock, when the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


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


def _parts(pieces: list[list[int]], first: list[bool]) -> tuple[bool, ...]:
    """Whether each part of an answer is right; none where it is one part."""
    ends = list(accumulate((len(piece) for piece in pieces), initial=0))
    return tuple(all(first[start:stop]) for start, stop in list(pairwise(ends))[::2]) if len(pieces) > 1 else ()


class _Said(NamedTuple):
    """How a model likes an answer.

    Attributes:
        logprob: sum of its log-probabilities.
        first: whether each token is the first choice.
        token: median seconds of the calls of one token; None where there was none.
        end: entries that are held behind it, of those of a full cache; None where it was read at once.
    """

    logprob: float
    first: list[bool]
    token: float | None
    end: float | None


def _answer(model: Any, cache: BudgetedCache, rest: list[int], answer: list[int], device: torch.device) -> _Said:
    """Read what comes before an answer, and the answer itself.

    A short one is read at once, where that gives the same as one token after the other does.
    """
    score = cache.selected.score
    apart = score.every or score.depth is not None or cache.selected.rest.renew is not None or len(answer) > LONG
    given = [rest, *([[token] for token in answer[:-1]] if apart else [answer[:-1]] if len(answer) > 1 else [])]
    logits, seconds = [], []
    with torch.no_grad():
        for ids in given:
            began = _now(device)
            logits.append(_read(model, cache, ids, device)[-1 if ids is rest else 0 :])
            if len(ids) == 1:
                seconds.append(_now(device) - began)
    rows, wanted = torch.cat(logits).float(), torch.tensor(answer, device=device)
    logprobs = rows.log_softmax(-1).gather(1, wanted[:, None])
    first: list[bool] = (rows.argmax(-1) == wanted).tolist()
    return _Said(
        float(logprobs.sum()), first, median(seconds) if seconds else None, cache.account().share if apart else None
    )


def _read(model: Any, cache: BudgetedCache, ids: list[int], device: Any) -> Tensor:
    """[q, vocabulary] logits after tokens that go through the cache."""
    logits: Tensor = model(input_ids=torch.tensor([ids], device=device), **{argument_of(model): cache}).logits
    return logits[0]


def table(answered: Sequence[Answered]) -> list[dict[str, Any]]:
    """A row for each method, budget and way to ask: shares of right answers, with intervals.

    ``tasks`` has the mean share of the parts of an answer that are right, by task. ``right`` is over all samples with
    Wilson's 95 % interval, ``lost`` the mean difference of log-probabilities to the full cache on the same samples,
    nats a token, with a paired t interval. ``heads``, ``places`` and ``end`` are means over the samples,
    ``prompt`` and ``token`` medians, None where nothing was measured.
    """
    rows = []
    tasks = list(dict.fromkeys(each.task for each in answered))
    arms = list(dict.fromkeys((each.known, each.method, each.budget) for each in answered))
    full = {knows: [e.logprob for e in answered if e.known == knows and e.method == FULL] for knows, *_ in arms}
    for knows, method, budget in arms:
        mine = [each for each in answered if (each.known, each.method, each.budget) == (knows, method, budget)]
        by_task = {task: [e.found for e in mine if e.task == task] for task in tasks}
        rows.append(
            {
                "method": method,
                "budget": budget,
                "known": knows,
                "samples": len(mine),
                "right": _interval(wilson(sum(each.right for each in mine), len(mine))),
                "tasks": {task: sum(found) / len(found) for task, found in by_task.items()},
                "lost": _interval(paired(full[knows], [each.logprob for each in mine])),
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
