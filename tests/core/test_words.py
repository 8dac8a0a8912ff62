"""Words out of fixed sets: one enum each lists them, what is given becomes a member, and errors name all of them."""

import json
import re
from pathlib import Path

import pytest

from budgeteer.allocate import uniform
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Status
from budgeteer.lab.results import STATUSES
from budgeteer.metering.outcome import Outcome
from budgeteer.models.model import Choice, Finish
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.history import Memory, Std
from budgeteer.rl.identity import fingerprint
from budgeteer.rl.recipe import Aborted, Pace, Recipe
from budgeteer.solve import Answer, StoppedBy


def recipe(**settings):
    return Recipe("mine", uniform(), grpo_advantage, **settings)


FIELDS = {
    "the choice's finish": (Finish, lambda word: Choice("4", 1, word).finish),
    "the answer's stopped_by": (StoppedBy, lambda word: Answer("4", word).stopped_by),
    "the memory's std": (Std, lambda word: Memory(std=word).std),
    "aborted of recipe 'mine'": (Aborted, lambda word: recipe(aborted=word).aborted),
    "pace of recipe 'mine'": (Pace, lambda word: recipe(pace=word).pace),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_word_becomes_the_member_that_it_spells(field):
    words, taken = FIELDS[field]
    for word in words:
        assert taken(word.value) is word is taken(word)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("wrong", ["", "drop", "STOP", 3, None, ["stop"]])
def test_another_word_is_refused_with_the_list_of_all(field, wrong):
    words, taken = FIELDS[field]
    known = ", ".join(word.value for word in words)
    with pytest.raises(InvalidInput, match=re.escape(f"{field} is {wrong!r}; choose one of {known}")):
        taken(wrong)


@pytest.mark.parametrize("words", [Finish, StoppedBy, Std, Aborted, Pace, Outcome])
def test_json_text_and_identities_show_the_words_themselves(words):
    values = [word.value for word in words]
    assert json.loads(json.dumps(list(words))) == values == [f"{word}" for word in words] == list(words)
    assert fingerprint(list(words)) == fingerprint(values)  # a checkpoint of before is one of the same run


def test_the_words_are_those_of_files_that_exist():
    assert list(Finish) == ["stop", "length", "cut", "aborted"]
    assert list(Std) == ["rate", "score"]
    assert (list(Aborted), list(Pace)) == (["mask", "failure"], ["step", "run"])
    assert (
        [status.word for status in Status]
        == ["running", *STATUSES]
        == ["running", "ended", "finished", "aborted", "cut"]
    )


def test_an_answer_tells_its_reason_as_rows_hold_it():
    assert Answer("4", StoppedBy.CAP).reason == "cap"
    assert Answer(None, StoppedBy.ERROR, error="no connection").reason == "error: no connection"
    assert type(Answer(None, StoppedBy.CAP).reason) is str


def test_the_page_on_answers_lists_every_reason():
    page = (Path(__file__).parents[2] / "docs/solve.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| `stopped_by` \| (.*) \|$", page, re.MULTILINE)
    assert re.findall("`(\\w+)", row) == list(StoppedBy)
