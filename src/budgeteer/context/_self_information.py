"""The words that a language model did not expect.

Papers: "Compressing Context to Enhance Inference Efficiency of Large Language Models" (Selective Context), arXiv
2310.06201; LLMLingua (arXiv 2310.05736) drops tokens by the same measure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from budgeteer.context.fill import Span, prune, weighted
from budgeteer.context.pieces import talk_of
from budgeteer.context.protocol import Count, Message, Reducer
from budgeteer.core.errors import CheckpointError, MissingExtra

Surprise = Callable[[str], list[Span]]
"""Text -> its tokens, each with -ln of its probability after what stands before it."""


def self_information(surprise: Surprise) -> Reducer:
    """Keep the words of the most information, as many as fit; the rest of every piece is dropped.

    Formula: a word's weight is the sum over its tokens t of -ln p(t | tokens before it in the conversation).
    As in Selective Context, with words for its phrases. Not in it from LLMLingua: the choice of whole passages first,
    and probabilities after the text as it was cut so far.
    Helps when text is wordy; does not for numbers, code and tables, where every token counts.

    Args:
        surprise: text -> (first character, the one behind the last, -ln p) of each token.

    >>> from budgeteer.context.protocol import counter
    >>> talk = [{"role": "user", "content": "It is a cat"}, {"role": "user", "content": "What?"}]
    >>> rare = self_information(lambda text: [(8, 11, 5.0), (0, 2, 1.0), (3, 5, 0.5)])
    >>> rare(talk, 14, counter(lambda text: len(text.split())))[0]["content"]
    'It cat'
    """

    def reduce(messages: Sequence[Message], budget: int, count: Count) -> list[Message]:
        talk = talk_of(messages)
        lines = talk.lines(range(len(talk.pieces)))
        spans = surprise("".join(lines))
        rows, begin = [], 0
        for text, line in zip(talk.texts, lines, strict=True):
            end = begin + len(line)
            rows.append(weighted(text, [(a - begin, b - begin, weight) for a, b, weight in spans if begin <= a < end]))
            begin = end
        return prune(talk, rows, budget, count)

    return reduce


def surprise_of(method: str, given: str) -> Surprise:
    """The surprise of an option: by the embedded thinking model (``thinker``), or a causal model of transformers.

    Raises:
        MissingExtra: transformers is not installed.
        CheckpointError: there is no such model.
    """
    if given == "thinker":
        from budgeteer.models.thinker import thinker

        return surprise_by(str(thinker()))
    return surprise_by(given)


def surprise_by(name: str, *, window: int = 512) -> Surprise:
    """The surprise of a causal model. A text that is longer than the window is read in windows that overlap by half.

    Args:
        name: a folder, or a name that transformers loads.
        window: tokens at once, 2 or more.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingExtra("transformers", "hf") from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot load {name!r} as a causal model: {str(error).splitlines()[0]}") from error
    model: Any = loaded.eval()

    def surprise(text: str) -> list[Span]:
        encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ids, places = encoded["input_ids"], encoded["offset_mapping"]
        weights = [float("inf")] * len(ids)  # nothing stands before the first token: it stays
        for begin in range(0, max(1, len(ids) - window // 2), max(1, window // 2)):
            part = torch.tensor([ids[begin : begin + window]])
            if part.shape[1] < 2:
                break
            fresh = window // 2 if begin else 1  # what the window before has not read with more before it
            with torch.no_grad():
                logits = model(input_ids=part).logits[0, fresh - 1 : -1].float()
            found = logits.logsumexp(-1) - logits.gather(1, part[0, fresh:, None])[:, 0]
            weights[begin + fresh : begin + part.shape[1]] = found.tolist()
        return [(begin, end, weight) for (begin, end), weight in zip(places, weights, strict=True)]

    return surprise
