"""Encoders and rerankers by name: words alone, or a model's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.context.protocol import Encode, Rerank
from budgeteer.core.errors import MissingExtra
from budgeteer.core.plan import F64
from budgeteer.core.tf_idf import tf_idf

WORDS = "words"


def encode_of(method: str, given: str) -> Encode:
    """The encoder of an option: ``words``, or a sentence encoder's folder or name.

    Raises:
        MissingExtra: transformers is not installed.
        CheckpointError: there is no such model.
    """
    if given == WORDS:
        return words
    from budgeteer.models.embedder import embedder

    return embedder(given)


def rerank_of(method: str, given: str) -> Rerank:
    """The reranker of an option: ``words``, a cross-encoder (a model with one output), or a sentence encoder.

    Raises:
        MissingExtra: transformers is not installed.
        CheckpointError: there is no such model.
    """
    if given != WORDS and _is_classifier(given):
        return _cross_encoder(given)
    return cosine(encode_of(method, given))


def words(texts: Sequence[str]) -> F64:
    """Vectors of counted words, weighted by how few of these texts have each."""
    return tf_idf(texts)


def cosine(encode: Encode) -> Rerank:
    """A reranker that compares the question with the whole text: neither more text nor less is better by itself."""

    def rerank(question: str, texts: Sequence[str]) -> F64:
        from budgeteer.context.fill import similarities

        return similarities(encode, question, texts)[0]

    return rerank


def _is_classifier(name: str) -> bool:
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise MissingExtra("transformers", "hf") from error
    if not (Path(name) / "config.json").is_file():
        return False  # a name that is looked up elsewhere is taken to be an encoder, and a wrong one fails there
    kinds: Any = AutoConfig.from_pretrained(name).architectures
    return any("ForSequenceClassification" in kind for kind in kinds or ())


def _cross_encoder(name: str, batch: int = 32) -> Rerank:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(name)
    model: Any = AutoModelForSequenceClassification.from_pretrained(name).eval()

    def rerank(question: str, texts: Sequence[str]) -> F64:
        found: list[float] = []
        for begin in range(0, len(texts), batch):
            part = list(texts[begin : begin + batch])
            pairs = tokenizer([question] * len(part), part, padding=True, truncation=True, return_tensors="pt")
            with torch.no_grad():
                found += model(**pairs).logits[:, -1].double().tolist()
        return np.array(found)

    return rerank
