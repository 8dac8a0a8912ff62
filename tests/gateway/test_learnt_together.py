"""What several replicas learn of answers is added in their store: none overwrites what another has learnt."""

from __future__ import annotations

import json

import pytest

from budgeteer.core.usage import Usage
from budgeteer.gateway.learnt import RESERVES, Learnt
from budgeteer.gateway.store import SqliteStore
from budgeteer.metering.call import Metering
from budgeteer.metering.settlement import Answer


def replica():
    metering = Metering(None, estimator=RESERVES)
    return Learnt(metering), metering


def answer(metering, model, calls):
    for n in range(calls):
        planned = metering.plan("openai", "chat", model, Usage(input=100, output=1000))
        metering.settlement(planned, Answer(Usage(input=10, output=10 + n)))


def calls(text):
    return {key: track["calls"] for key, track in json.loads(text)["reserves"].items() if key.endswith("output")}


def test_two_replicas_add_what_they_learnt_in_one_store(tmp_path):
    stores = [SqliteStore(tmp_path / "s.db") for _ in range(2)]

    def store(n):
        return lambda change: stores[n].change_note("learnt", change)

    (one, of_one), (two, of_two) = replica(), replica()
    answer(of_one, "m", 30)
    answer(of_two, "m", 20)
    answer(of_two, "other", 5)
    one.share(store(0))
    two.share(store(1))
    assert calls(stores[0].note("learnt")) == calls(two.to_text()) == {"m output": 50, "other output": 5}
    one.share(store(0))  # nothing is added twice, and it takes over what the other learnt
    assert calls(one.to_text()) == calls(stores[1].note("learnt")) == {"m output": 50, "other output": 5}
    answer(of_one, "m", 3)
    one.share(store(0))
    assert calls(stores[0].note("learnt")) == {"m output": 53, "other output": 5}
    three, _ = replica()
    three.read(stores[0].note("learnt"))
    three.share(store(0))
    assert calls(stores[0].note("learnt")) == calls(three.to_text()) == {"m output": 53, "other output": 5}
    for each in stores:
        each.close()


def test_what_is_learnt_while_the_store_is_asked_is_kept_and_a_store_that_fails_is_asked_again():
    learnt, metering = replica()
    answer(metering, "m", 4)
    stored = []

    def store(change):
        stored.append(change(None))
        answer(metering, "m", 2)
        stored.append(change(stored[0]))  # as after another replica's change

    def fails(change):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        learnt.share(fails)
    assert learnt.changed
    learnt.share(store)
    assert (calls(stored[0]), calls(learnt.to_text())) == ({"m output": 4}, {"m output": 10})
