"""A Model by one word, as the command line names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.urls import without_password
from budgeteer.models.model import PREFIX, Model

FORMS = ("reasoner", "smollm2", "gguf:PATH", "hf:FOLDER", "http://HOST:PORT/v1#MODEL")
"""What :func:`load_model` knows."""


def load_model(spec: str, **options: Any) -> Model:
    """The model that a word names.

    ========================  ==========================================================================================
    ``reasoner``              the embedded reasoner; ``reasoner:FOLDER`` = other weights of its kind
    ``smollm2``               SmolLM2-135M-Instruct through llama.cpp
    ``gguf:PATH``             a GGUF file through llama.cpp
    ``hf:FOLDER``             a folder, a file ``.gguf`` or a name that transformers loads; runs steers
    ``http://H:P/v1#MODEL``   an OpenAI-compatible endpoint; https, too. It is taken to continue raw text, as most do
    ========================  ==========================================================================================

    Args:
        spec: such a word.
        options: of the class behind it.

    Raises:
        UnknownName: no such word; the message has the nearest ones.
        InvalidInput: an endpoint without the name of its model, or a prefix with nothing behind it.
        CheckpointError: weights that are missing or damaged.
        MissingExtra: a dependency that is not installed; the message says which extra has it.
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
    if kind == "hf" and rest:
        from budgeteer.models.transformers import Transformers

        return Transformers(rest, **options)
    raise UnknownName("model", without_password(spec), FORMS)
