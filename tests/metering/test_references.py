"""References to stored responses and items: what is one, and what it stands for."""

from __future__ import annotations

import pytest

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import Usage
from budgeteer.metering.estimate import Bounds, worst_case
from budgeteer.metering.references import Recent, Stored, bound, bounded, stored_in
from budgeteer.metering.unseen import CONTINUED, ITEM, THOUGHTS, unseen

WORST = Usage(input=900, output=500)
THOUGHT = {"id": "rs_1", "type": "reasoning", "summary": []}
SAID = {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Yes"}]}
SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed"}


def kept(*output, usage=Usage(input=40, output=30, reasoning=20), opaque=False, **more):  # noqa: B008
    response = {"id": "resp_1", "output": list(output), **more}
    return {one.id: one for one in stored_in(response, usage, WORST, "m", "u", opaque)}


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"type": "item_reference", "id": "msg_1"}, ITEM),
        ({"id": "msg_1"}, ITEM),
        ({"id": "msg_1", "type": None}, ITEM),
        (THOUGHT, THOUGHTS),
        ({**THOUGHT, "encrypted_content": None, "content": []}, THOUGHTS),
    ],
)
def test_what_stands_for_something_stored_needs_a_bound(item, name):
    """An item without a type is a reference as well, and so is a reasoning item whose thoughts are stored."""
    request = {"input": [item], "max_output_tokens": 1}
    assert unseen(request).references == [(name, item["id"])]
    with pytest.raises(InvalidInput, match=f"not bounded by what it shows .{name}"):
        worst_case(request)
    assert worst_case(request, Bounds(overhead=0), bounded(unseen(request), 5000)).input > 5000


@pytest.mark.parametrize(
    "item",
    [
        SAID, {"id": "x", "role": "user", "content": "Hi"}, {**THOUGHT, "encrypted_content": "gAAA"},
        {**THOUGHT, "content": [{"type": "reasoning_text", "text": "So"}]}, {**THOUGHT, "id": "__fake_id__"},
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
    ],
)  # fmt: skip
def test_what_shows_all_of_itself_needs_none(item):
    parts = unseen({"input": [item]})
    assert (parts.hidden, parts.references) == ([], [])


def test_other_hidden_input_stays_hidden_beside_a_reference():
    parts = unseen({
        "previous_response_id": "resp_1", "conversation": "c",
        "input": [{"type": "item_reference"}, {"type": "item_reference", "id": "x"}],
    })  # fmt: skip
    assert sorted(bounded(parts, 5).hidden) == ["conversation", "item_reference"]


def test_what_an_answer_leaves_behind():
    found = kept(THOUGHT, SAID)
    assert found["resp_1"] == Stored("resp_1", "resp_1", "u", "m", 70)
    assert (found["rs_1"].hidden, found["rs_1"].opaque) == (20, False)
    assert (found["msg_1"].hidden, found["msg_1"].shown >= len(str(SAID))) == (0, True)
    assert Stored.of_text("rs_1", found["rs_1"].to_text()) == found["rs_1"]
    assert kept(THOUGHT, store=False) == {}
    # what the usage does not say is as much as it can have been
    unsaid = kept(THOUGHT, usage=Usage())
    assert (unsaid["resp_1"].shown, unsaid["rs_1"].hidden) == (1400, 500)
    assert kept(THOUGHT, usage=Usage(input=40, output=30))["rs_1"].hidden == 30
    assert not any(one.opaque for one in found.values())
    assert [one.opaque for one in kept(SEARCH, SAID).values()] == [True, True, False]
    assert kept(SAID, opaque=True)["resp_1"].opaque


def test_the_bound_of_several_references():
    known = kept(THOUGHT, SAID)
    shown = known["rs_1"].shown
    assert bound([(CONTINUED, "resp_1")], known).tokens == 70
    assert bound([(ITEM, "rs_1"), (THOUGHTS, "rs_1")], known).tokens == 2 * (shown + 20)
    second = {**THOUGHT, "id": "rs_2"}
    both = kept(THOUGHT, second)  # the thoughts of one response count once
    assert bound([(ITEM, "rs_1"), (ITEM, "rs_2")], both).tokens == 2 * shown + 20
    assert (bound([(ITEM, "rs_1")], known).model, bound([(ITEM, "msg_1")], known).model) == ("m", "")


@pytest.mark.parametrize(
    ("references", "said"),
    [
        (
            [(CONTINUED, "resp_9")],
            "previous_response_id 'resp_9' is not among the answers .*conversation whole in input",
        ),
        ([(ITEM, "msg_9")], "item_reference 'msg_9' is not among the answers .*send the items whole"),
        ([(THOUGHTS, "rs_9")], "reasoning item 'rs_9' is not among the answers .*encrypted_content"),
        ([(ITEM, "ws_1")], "item_reference 'ws_1' stands for parts whose tokens are not known"),
        ([(ITEM, "rs_1"), (ITEM, "rs_2")], "answers of m and n, which none can read"),
        ([(ITEM, "msg_1"), (ITEM, "rs_2")], "answers of u and v, which none can read"),
    ],
)
def test_what_nothing_bounds_is_named_with_what_to_send_instead(references, said):
    known = {**kept(THOUGHT, SAID, SEARCH), "rs_2": Stored("rs_2", "resp_2", "v", "n", 5, 5)}
    with pytest.raises(InvalidInput, match=said):
        bound(references, known)


def test_what_is_remembered_in_memory_is_bounded():
    recent = Recent(2)
    for n in (1, 2, 1, 3):
        recent.add([Stored(str(n), "r", "u", "m", n)])
    assert set(recent.find("123", "u")) == {"1", "3"}
    assert recent.find("123", "v") == {}
