"""A model by one word, and clear errors for what is no such word."""

from __future__ import annotations

import asyncio

import pytest

from budgeteer.core.errors import CheckpointError, InvalidInput, UnknownName
from budgeteer.models.load import load_model
from budgeteer.models.model import CAPABILITIES, PREFIX
from budgeteer.models.policy import REASONER


@pytest.mark.parametrize(
    ("spec", "name"),
    [("reasoner", "reasoner"), (f"reasoner:{REASONER}", "reasoner"), ("http://127.0.0.1:1/v1#tiny", "tiny")],
)
def test_a_word_is_a_model(spec: str, name: str) -> None:
    if spec.startswith("http"):
        pytest.importorskip("openai")
    model = load_model(spec)
    assert model.name == name
    assert PREFIX in model.capabilities <= CAPABILITIES
    assert model.count("1 + 1") >= 3
    asyncio.run(model.aclose())


def test_a_folder_is_loaded_by_transformers() -> None:
    pytest.importorskip("transformers")
    model = load_model(f"hf:{REASONER}")
    assert model.count("1") == 1
    asyncio.run(model.aclose())


@pytest.mark.parametrize(("spec", "hint"), [("reasonr", "reasoner"), ("smolm2", "smollm2"), ("ggu:x", "gguf:PATH")])
def test_a_wrong_word_names_the_nearest_ones(spec: str, hint: str) -> None:
    with pytest.raises(UnknownName, match=hint):
        load_model(spec)


@pytest.mark.parametrize("spec", ["gguf:", "hf:", "reasoner:", "http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1#"])
def test_half_a_word_is_refused(spec: str) -> None:
    with pytest.raises(InvalidInput, match=r"put a path|which model"):
        load_model(spec)


def test_missing_weights_are_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        load_model(f"reasoner:{tmp_path}")
    pytest.importorskip("xllamacpp")
    with pytest.raises(CheckpointError, match="there is no file"):
        load_model(f"gguf:{tmp_path / 'no.gguf'}")
