"""The tree of allowances in a journal, and its picture."""

from __future__ import annotations

import pickle
import random
import xml.etree.ElementTree as ET
from contextlib import suppress

import pytest

from budgeteer.core.errors import IdConflict, JournalBroken, ReservationClosed
from budgeteer.draw.tree import Branch, tree_chart
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.ledger.journal import entries
from budgeteer.ledger.tree import Node, Tree, below, tree


@pytest.fixture
def ledger():
    made = MemoryLedger()
    made.open("acme", [Limit("all", 100_000), Limit("tool:search", 50)])
    return made


def charge(allowance, units, held=500, searches=0):
    with allowance.reserve({"all": held, "tool:search": 1}) as call:
        call.settle({"all": units, "tool:search": searches})


def test_who_was_given_spent_and_holds_what(ledger):
    team = Allowance(ledger, "acme", {"all": 10_000, "tool:search": 9}, tags={"part": "t", "given": "all 10000"})
    charge(team, 120)
    for n in range(2):  # a scout twice, each time with a part of its own
        part = {"scout": {"all": 2_000, "tool:search": 2}}
        scout = team.share(part, tags={"part": str(n), "given": "all 2000 tool:search 2"})["scout"]
        charge(scout, 300 + n, searches=1)
        if n == 0:
            reader = scout.share({"reader": {"all": 600, "tool:search": 0}}, tags={"part": "r", "given": "all 600"})
            with reader["reader"].reserve({"all": 70, "tool:search": 0}) as call:
                call.settle({"all": 70, "tool:search": 0})
        scout.close()
    with team.reserve({"all": 40, "tool:search": 0}) as call:
        call.release()
    under_way = team.reserve({"all": 55, "tool:search": 0}).__enter__()
    (root,) = tree(ledger.lines(), "all")
    (scout,) = root.children
    (reader,) = scout.children
    spent = 120 + 300 + 301 + 70
    assert (root.path, root.given, root.parts, root.calls, root.spent, root.held) == ("acme", 10_000, 1, 4, spent, 55)
    assert root.back == 10_000 - spent - 55
    assert (scout.path, scout.given, scout.parts, scout.calls, scout.spent) == ("acme/scout", 4_000, 2, 3, 671)
    assert (reader.path, reader.given, reader.spent, reader.back) == ("acme/scout/reader", 600, 70, 530)
    (searches,) = tree(ledger.lines(), "tool:search")
    assert (searches.given, searches.spent, searches.children[0].given, searches.children[0].spent) == (None, 2, 4, 2)
    assert tree(ledger.lines(), "money") == []
    del under_way


def test_an_extended_or_abandoned_call_counts_once():
    now = 0
    ledger = MemoryLedger(clock=lambda: now)
    ledger.open("a", [Limit("all", 1000)])
    held = ledger.reserve("a", {"all": 100}, ttl=10)
    ledger.extend(held.id, {"all": 150})
    (node,) = tree(ledger.lines(), "all")
    assert (node.held, node.spent, node.calls) == (150, 0, 0)
    now = 10**6
    ledger.remaining("a")
    (node,) = tree(ledger.lines(), "all")
    assert (node.held, node.spent, node.calls, node.back) == (0, 150, 1, None)


def test_a_line_that_cannot_be_read_is_told():
    with pytest.raises(JournalBroken, match="journal line 0"):
        tree([("no line", "")], "all")


def test_the_picture_has_a_bar_for_each_part_of_each_branch():
    branches = [Branch("team & co", 0, (30, 10, 60), "30 of 100"), Branch("scout", 1, (20, 0, 0), "20")]
    root = ET.fromstring(tree_chart(branches, "run 7"))
    bars = [one for one in root.iter() if one.tag.endswith("rect") and one.get("height") == "16"]
    assert [float(bar.get("width")) for bar in bars] == [120, 40, 240, 80]
    texts = [one.text for one in root.iter() if one.tag.endswith("text")]
    assert {"run 7", "team & co", "30 of 100", "scout", "20"} <= set(texts)
    assert ET.fromstring(tree_chart([], "nothing")) is not None


def test_nodes_that_nobody_gave_anything_have_nothing_back():
    assert Node("a").back is None


def as_it_was(lines, kind):
    """Path -> calls, spent and held here and below, from the last line of every call: all calls are kept."""
    last, sums = {}, {}
    for (name, path, held, _, status, _, actual, *_), _ in entries(lines):
        amounts = dict(actual if status == "settled" else held)
        if name and kind in amounts:
            last[name] = path, status, amounts[kind]
    for path, status, units in last.values():
        steps = path.split("/")
        for scope in ["/".join(steps[: n + 1]) for n in range(len(steps))]:
            if status in ("open", "settled"):
                one = sums.setdefault(scope, [0, 0, 0])
                one[0] += status == "settled"
                one[1 if status == "settled" else 2] += units
    return {path: tuple(one) for path, one in sums.items()}


def nodes(roots):
    return {node.path: (node.calls, node.spent, node.held) for node, _ in below(roots, "")}


@pytest.mark.parametrize("seed", range(5))
def test_a_tree_that_forgets_what_cannot_change_is_that_of_all_calls(seed):
    rng, now, made = random.Random(seed), 0, []
    ledger = MemoryLedger(clock=lambda: now)
    paths = ["a", "a/b", "a/b/c", "a/d"]
    for path in paths:
        ledger.open(path, [Limit("all", None)])
    grown = Tree("all")
    for n in range(400):
        now += rng.choice([0, 0, 100, 3_000])
        if not made or rng.random() < 0.35:
            abandoned = rng.choice(["charge", "release"])
            made.append(ledger.reserve(rng.choice(paths), {"all": rng.randrange(9)}, ttl=5, on_abandon=abandoned).id)
        elif (what := rng.choice(["settle", "settle", "extend", "release"])) == "release":
            with suppress(ReservationClosed):
                ledger.release(rng.choice(made))
        else:
            with suppress(
                ReservationClosed, IdConflict
            ):  # a call that was abandoned or released is settled all the same
                getattr(ledger, what)(rng.choice(made), {"all": rng.randrange(20)})
        if n % 7 == 0:
            grown.read(ledger.lines(grown.seen))
            assert nodes(grown.roots()) == as_it_was(ledger.lines(), "all")
    seen = {line.split("\t")[2] for line, _ in ledger.lines()}
    assert seen == {"account", "open", "settled", "released", "expired"}
    assert any('"abandoned"' in line for line, _ in ledger.lines())
    late = [line.split("\t")[3] for line, _ in ledger.lines() if line.split("\t")[2] == "settled"]
    assert len(set(late)) < len(late)  # some grew after they were charged


def test_an_id_that_a_ledger_has_forgotten_and_charges_again_is_two_calls():
    now = 0
    ledger = MemoryLedger(clock=lambda: now, remember=60)
    ledger.open("a", [Limit("all", None)])
    for units in (5, 7):
        ledger.reserve("a", {"all": 9}, id="same")
        ledger.settle("same", {"all": units})
        now += 100_000
    (node,) = tree(ledger.lines(), "all")
    assert (node.calls, node.spent) == (2, 12) == (2, ledger.snapshot()[1].accounts["a"].books["all"].spent)


def test_settled_calls_are_not_kept(ledger):
    spends, grown, sizes = Allowance(ledger, "acme", {"all": 100_000, "tool:search": 50}), Tree("all"), []
    for _ in range(2):
        for _ in range(20):
            charge(spends, 3)
        grown.read(ledger.lines(grown.seen))
        sizes.append(len(pickle.dumps(grown)))
    assert sizes[1] - sizes[0] < 20  # of forty calls as of twenty
