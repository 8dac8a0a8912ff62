"""Make a Model from one word, as it is written on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.urls import without_password
from budgeteer.models.model import PREFIX, Model

FORMS = ("reasoner", "thinker", "smollm2", "gguf:PATH", "hf:FOLDER", "anthropic:MODEL", "http://HOST:PORT/v1#MODEL")
"""Forms of the word that :func:`load_model` reads."""


def named(model: Model | str) -> Model:
    """A model that was given, or the one of a name as ``--model`` takes it."""
    return load_model(model) if isinstance(model, str) else model


def load_model(spec: str, **options: Any) -> Model:
    """Make the model that ``spec`` names.

    ========================  ==========================================================================================
    ``reasoner``              the embedded reasoner; ``reasoner:FOLDER`` = other weights of its kind
    ``thinker``               the embedded thinking model, through transformers; ``gguf:PATH`` of it is faster
    ``smollm2``               SmolLM2-135M-Instruct through llama.cpp
    ``gguf:PATH``             a GGUF file through llama.cpp
    ``hf:FOLDER``             a folder, a ``.gguf`` file or a name that transformers loads; it can run steers
    ``anthropic:MODEL``       Claude by its own API; the key from ANTHROPIC_API_KEY
    ``http://H:P/v1#MODEL``   an OpenAI-compatible endpoint (or https); it must continue raw text, as most of them do
    ========================  ==========================================================================================

    Args:
        spec: one of these forms.
        options: keyword arguments of the model's class.

    Raises:
        UnknownName: ``spec`` has none of these forms; the message suggests the nearest ones.
        InvalidInput: an endpoint without the name of its model, or a prefix with nothing behind its colon.
        CheckpointError: weights are missing or damaged.
        MissingExtra: a dependency is not installed; the message says which extra has it.
    """
    kind, colon, rest = spec.partition(":")
    if kind in ("http", "https"):
        url, _, name = spec.partition("#")
        if not name:
            raise InvalidInput(
                f"{without_password(spec)!r} does not say which model of the endpoint; give ADDRESS#NAME"
            )
        from budgeteer.models.openai import OpenAI

        return OpenAI(url, name, **{"capabilities": frozenset({PREFIX}), **options})
    if colon and not rest:
        raise InvalidInput(f"{spec!r} names no file; put a path behind the colon")
    if kind == "reasoner":
        from budgeteer.models.policy import load_policy
        from budgeteer.models.reasoner import Reasoner

        return Reasoner(load_policy(Path(rest)) if rest else None, **options)
    if spec == "smollm2":
        from budgeteer.models.smollm2 import smollm2

        weights = smollm2()  # first: where they are missing, the message has all that this model needs
        from budgeteer.models.llama_cpp import LlamaCpp

        return LlamaCpp(weights, **options)
    if kind == "gguf" and rest:
        from budgeteer.models.llama_cpp import LlamaCpp

        return LlamaCpp(Path(rest), **options)
    if spec == "thinker":
        from budgeteer.models.thinker import thinker

        folder = thinker()
        from budgeteer.models.transformers import Transformers

        return Transformers(folder, **{"name": "thinker", **options})
    if kind == "anthropic" and rest:
        from budgeteer.models.anthropic import Anthropic

        return Anthropic(rest, **options)
    if kind == "hf" and rest:
        from budgeteer.models.transformers import Transformers

        return Transformers(rest, **options)
    raise UnknownName("model", without_password(spec), FORMS)
