"""What it costs to read documents apart (``budgeteer.cache.parallel``), against reading them one behind the other.

Temperature and scale are chosen on one half of the questions, for the mean log-probability of the right answers, and
judged on the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

from budgeteer.cache.parallel import ParallelCache, Read, read
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.needles import Sample, samples
from budgeteer.lab.stats import paired, wilson
from budgeteer.models.inside import argument_of

TEMPERATURES, SCALES = (0.5, 0.7, 0.9, 1.0), (0.6, 0.8, 1.0)
"""That are tried."""
PREFIX = "Some numbers are hidden in the following documents. Remember them.\n"
SEQUENTIAL, PLAIN, TUNED = "sequential", "parallel", "ape"
"""One behind the other; apart, with temperature and scale 1; apart, with the best ones."""


class Asked(NamedTuple):
    """A question about one of several documents.

    Attributes:
        documents: their tokens.
        question, answer: tokens that follow.
    """

    documents: list[list[int]]
    question: list[int]
    answer: list[int]


class Said(NamedTuple):
    """What became of one question.

    Attributes:
        logprob: of the right answer, nats a token.
        right: greedy decoding would write it.
    """

    logprob: float
    right: bool


def questions(
    encode: Callable[[str, bool], list[int]], count: int, documents: int, length: int, *, seed: int = 0
) -> list[Asked]:
    """Questions about documents of ``length`` tokens that hide one number each, under different keys.

    Args:
        encode: ``(text, first) -> ids``, as :func:`budgeteer.lab.cache_eval.opened` gives it.
        count: of questions.
        documents: of each question, 2 to 12.
        length: tokens of a document.
        seed: of all that is drawn.

    Raises:
        InvalidInput: another number of documents.
    """
    if not 2 <= documents <= 12:
        raise InvalidInput(f"{documents} documents; give 2 to 12, which have different keys")
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        group: dict[str, Sample] = {}
        while len(group) < documents:
            drawn = int(rng.integers(2**31))
            for one in samples("single", 1, length, lambda text: len(encode(text, False)), seed=drawn):
                group.setdefault(one.question, one)
        asked = list(group.values())[int(rng.integers(documents))]
        texts = [encode(each.context + "\n", False) for each in group.values()]
        found.append(Asked(texts, encode(asked.question, False), encode(asked.answer, False)))
    return found


def answered(model: Any, prefix: list[int], asked: Asked, settings: Sequence[tuple[float, float]]) -> Iterator[Said]:
    """The answer behind the documents one behind the other, and then behind them apart, once for each setting."""
    device = next(model.parameters()).device
    whole = [*prefix, *(token for text in asked.documents for token in text)]
    yield _said(model, torch.tensor([[*whole, *asked.question]], device=device), asked.answer, None)
    first, apart = _read(model, prefix, asked.documents, device)
    for temperature, scale in settings:
        cache = ParallelCache(model, first, apart, temperature=temperature, scale=scale)
        yield _said(model, torch.tensor([asked.question], device=device), asked.answer, cache)


def _read(model: Any, prefix: list[int], documents: list[list[int]], device: Any) -> tuple[Read, list[Read]]:
    texts = [torch.tensor([text], device=device) for text in (prefix, *documents)]
    return read(model, texts[0], texts[1:])


def _said(model: Any, ids: torch.Tensor, answer: list[int], cache: ParallelCache | None) -> Said:
    behind = torch.tensor([answer[:-1]], dtype=torch.long, device=ids.device)
    given = {} if cache is None else {argument_of(model): cache}
    with torch.no_grad():
        logits = model(input_ids=torch.cat([ids, behind], dim=1), **given).logits[0, -len(answer) :].float()
    wanted = torch.tensor(answer, device=ids.device)
    logprob = logits.log_softmax(-1).gather(1, wanted[:, None]).mean()
    return Said(float(logprob), bool((logits.argmax(-1) == wanted).all()))


def compare(model: Any, prefix: list[int], asked: Sequence[Asked]) -> dict[str, Any]:
    """Choose temperature and scale on the first half of the questions, and compare on the other.

    Args:
        model: a decoder of transformers without sliding layers.
        prefix: tokens before all documents.
        asked: questions, 4 or more.

    Returns:
        ``temperature`` and ``scale`` that were chosen, ``questions`` that were judged, ``rows`` by way to read:
        ``right`` with Wilson's interval, ``lost`` log-probability against reading one behind the other with a paired t
        interval, nats a token, and ``read``, the mean tokens that a prompt still reads when its documents are held.

    Raises:
        InvalidInput: fewer questions, or what :func:`budgeteer.cache.parallel.read` refuses.
    """
    if len(asked) < 4:
        raise InvalidInput(f"{len(asked)} questions; give 4 or more, half of them to choose with")
    settings = list(product(TEMPERATURES, SCALES))
    said = [list(answered(model, prefix, one, settings)) for one in asked]
    half = len(asked) // 2
    means = [float(np.mean([row[1 + place].logprob for row in said[:half]])) for place in range(len(settings))]
    best = int(np.argmax(means))
    places = {SEQUENTIAL: 0, PLAIN: 1 + settings.index((1.0, 1.0)), TUNED: 1 + best}
    judged, theirs = said[half:], asked[half:]
    rows = []
    for name, place in places.items():
        mine = [row[place] for row in judged]
        texts = [len(prefix) + sum(map(len, one.documents)) for one in theirs]
        held = 0.0 if place else float(np.mean(texts))
        rows.append(
            {
                "way": name,
                "right": asdict(wilson(sum(each.right for each in mine), len(mine))),
                "lost": asdict(paired([row[0].logprob for row in judged], [each.logprob for each in mine])),
                "read": held + float(np.mean([len(one.question) for one in theirs])),
            }
        )
    temperature, scale = settings[best]
    return {"temperature": temperature, "scale": scale, "questions": len(judged), "rows": rows}
