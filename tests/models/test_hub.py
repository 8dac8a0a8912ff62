"""A name that is no folder is asked for once, and the answer is one line."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

import transformers

from budgeteer.core.errors import CheckpointError
from budgeteer.models import hub
from budgeteer.models.transformers import pretrained


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that the hub was asked for; it cannot be reached."""
    names: list[str] = []

    def model_info(self: object, name: str, **options: object) -> None:
        names.append(name)
        raise ConnectionError("no route to the hub\nand a second line")

    monkeypatch.setattr(hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *args, **options: 1 / 0)
    return names


def test_a_name_that_the_hub_does_not_give_fails_at_once(asked: list[str]) -> None:
    with pytest.raises(CheckpointError, match=r"^someone/WRONG is no folder here.*no route to the hub$"):
        pretrained("someone/WRONG")
    assert asked == ["someone/WRONG"]


def test_a_path_that_no_model_can_be_named_by_is_not_asked_for(asked: list[str]) -> None:
    with pytest.raises(CheckpointError, match="a/b/c is not there; give a folder"):
        pretrained("a/b/c")
    assert not asked


def test_what_is_in_the_cache_is_not_asked_for(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *args: "/somewhere/config.json")
    with pytest.raises(CheckpointError, match="transformers cannot load"):  # which is asked next
        pretrained("someone/model")
    assert not asked
