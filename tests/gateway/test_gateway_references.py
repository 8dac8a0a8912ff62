"""References to stored responses: bounded by what the gateway answered to the same key."""

from __future__ import annotations

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)
openai = pytest.importorskip("openai")

from budgeteer.core.errors import LedgerUnavailable  # noqa: E402
from budgeteer.gateway import booking  # noqa: E402
from helpers import servers  # noqa: E402
from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.stored import Responses  # noqa: E402
from helpers.upstream import Upstream  # noqa: E402

TOOL = {
    "type": "function", "name": "add", "description": "Adds two numbers.", "strict": True,
    "parameters": {
        "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"],
        "additionalProperties": False,
    },
}  # fmt: skip
CAP = 5000
ASK = {"model": "m", "input": "Add 1 and 1", "max_output_tokens": CAP}
RESPONSES = "/v1/responses"


@pytest.fixture
def running(tmp_path):
    """A gateway before two models at one endpoint that stores its responses."""
    with Upstream(m=(kept := Responses()), other=kept, plain=Responses(0, 0)) as upstream:
        upstream.reads = kept.reads
        text = toml([("one", upstream.url, ["m", "other", "plain"], "")], cap=CAP)
        with Running(tmp_path, text) as running:
            running.upstream, running.kept = upstream, kept
            yield running


def turns(client, way, stream, model="m"):
    """A conversation of three turns, the first two of which call a tool; the text of the last answer."""
    said = [{"role": "user", "content": "Add 1 and 1"}]
    input, before = said, None
    for _ in range(3):
        about = {"model": model, "input": input, "tools": [TOOL], "max_output_tokens": CAP}
        if before is not None and way == "previous_response_id":
            about["previous_response_id"] = before
        if stream:
            *_, last = client.responses.create(**about, stream=True)
            assert last.type == "response.completed"
            response = last.response
        else:
            response = client.responses.create(**about)
        before = response.id
        items = [item.model_dump(exclude_none=True) for item in response.output]
        if way == "item_reference":  # as Vercel's AI SDK sends them
            said += [{"type": "item_reference", "id": item["id"]} for item in items]
        elif way == "no type":
            said += [{"id": item["id"]} for item in items]
        else:
            said += items
        results = [
            {"type": "function_call_output", "call_id": item["call_id"], "output": "2"}
            for item in items
            if item["type"] == "function_call"
        ]
        said += results
        input = results if way == "previous_response_id" else said
    return response.output_text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("way", ["previous_response_id", "item_reference", "no type", "whole items"])
def test_three_turns_with_tools(running, way, stream):
    """What is reserved covers the thoughts that the provider reads again, and is not far above it."""
    client = openai.OpenAI(base_url=running.url, api_key=running.key("all:100000"), max_retries=0)
    assert turns(client, way, stream).startswith("It is done.")
    records = running.settled(3)
    assert [one["outcome"] for one in records] == ["ok"] * 3
    assert running.spent() == sum(one["units"]["all"] for one in records) == running.upstream.billed
    assert [one["overshoot"] for one in records] == [{}] * 3
    for n, one in enumerate(records):
        assert n * 3000 < one["input"] <= one["bound"] < n * 3000 + 2500


def test_what_is_not_known_or_of_another_key_is_refused(running):
    mine, other = running.key("all:100000"), running.key("all:100000", path="else")
    _, _, first = running.call(RESPONSES, ASK, mine)
    calls = running.upstream.calls
    of_response, of_item = first["id"], first["output"][0]["id"]
    for field, body, key in (
        ("previous_response_id", {"previous_response_id": of_response}, other),
        ("previous_response_id", {"previous_response_id": "resp_unknown"}, mine),
        ("item_reference", {"input": [{"type": "item_reference", "id": of_item}]}, other),
        ("item_reference", {"input": [{"type": "item_reference", "id": "msg_unknown"}]}, mine),
        ("item_reference", {"input": [{"id": of_item}]}, other),
        ("reasoning item", {"input": [{"type": "reasoning", "id": of_item, "summary": []}]}, other),
        ("item_reference", {"input": [{"type": "item_reference", "id": "\u0000"}]}, mine),
    ):
        status, _, found = running.call(RESPONSES, {**ASK, **body}, key)
        assert (status, found["error"]["code"]) == (400, "not_bounded")
        assert found["error"]["message"].startswith(field)
        assert ('"store": false' if field != "reasoning item" else "encrypted_content") in found["error"]["message"]
    assert running.upstream.calls == calls
    status, _, found = running.call(RESPONSES, {**ASK, "conversation": "conv_1"}, mine)
    assert (status, found["error"]["code"]) == (400, "not_bounded")
    assert "conversation" in found["error"]["message"]
    for odd in ({"type": "item_reference"}, {"type": "item_reference", "id": 5}, {"id": None}):
        assert running.call(RESPONSES, {**ASK, "input": [odd]}, mine)[0] == 400
    assert running.upstream.calls == calls


def test_max_input_bounds_what_is_not_known_but_never_opens_answers_of_another_key(tmp_path):
    with Upstream(m=Responses()) as upstream:
        text = toml([("one", upstream.url, ["m"], "")], cap=CAP) + "\nmax_input = 9000"
        with Running(tmp_path, text) as running:
            mine, other = running.key("all:100000"), running.key("all:100000", path="else")
            _, _, first = running.call(RESPONSES, ASK, mine)
            for id, key, expected in ((first["id"], other, 400), ("resp_unknown", mine, 404), (first["id"], mine, 200)):
                assert running.call(RESPONSES, {**ASK, "previous_response_id": id}, key)[0] == expected
            assert running.call(RESPONSES, {**ASK, "conversation": "conv_1"}, mine)[0] == 200


def test_a_response_is_read_by_its_own_model_only(running):
    """Tokens and pictures count otherwise at another model; bytes bound an item that holds no thoughts at any."""
    key = running.key("all:100000")
    _, _, first = running.call(RESPONSES, ASK, key)
    thought, call = (item["id"] for item in first["output"])
    for body in ({"previous_response_id": first["id"]}, {"input": [{"type": "item_reference", "id": thought}]}):
        status, _, found = running.call(RESPONSES, {**ASK, "model": "other", **body}, key)
        assert (status, found["error"]["code"]) == (400, "not_bounded")
        assert "of an answer of m at the upstream 'one'; call that model" in found["error"]["message"]
    body = {**ASK, "model": "other", "input": [{"type": "item_reference", "id": call}]}
    assert running.call(RESPONSES, body, key)[0] == 200


def test_a_reference_goes_to_the_upstream_that_answered(tmp_path):
    """Two endpoints of one model, each with responses of its own."""
    with Upstream(m=Responses(prefix="a")) as one, Upstream(m=Responses(prefix="b")) as two:
        text = toml([("one", one.url, ["m"], ""), ("two", two.url, ["m"], "")], cap=CAP)
        with Running(tmp_path, text) as running:
            key = running.key("all:1000000")
            first = {}
            while len(first) < 2:
                _, _, found = running.call(RESPONSES, ASK, key)
                first[found["id"][0]] = found
            for name, upstream in (("a", one), ("b", two)):
                calls = upstream.calls
                for _ in range(6):
                    body = {**ASK, "previous_response_id": first[name]["id"]}
                    assert running.call(RESPONSES, body, key)[0] == 200
                assert upstream.calls == calls + 6
            both = [{"type": "item_reference", "id": found["output"][1]["id"]} for found in first.values()]
            status, _, found = running.call(RESPONSES, {**ASK, "input": both}, key)
            assert status == 400
            assert "one and two, which none can read" in found["error"]["message"]


def test_a_downgraded_conversation_goes_on_at_the_model_that_answered(tmp_path, monkeypatch):
    """The policy chooses the model before it is looked at who can read the references, and leaves a conversation where
    it is."""
    monkeypatch.setattr(booking, "_STALE", -1)  # policies see what is spent now
    with Upstream(m=(kept := Responses()), small=kept) as upstream:
        policy = '[policies.downgrade]\nabove = 0.15\nmodels = { m = "small" }'
        text = toml([("one", upstream.url, ["m", "small"], "")], cap=CAP, extra=policy)
        with Running(tmp_path, text) as running:
            key = running.key("all:45000")
            _, _, first = running.call(RESPONSES, ASK, key)
            _, _, second = running.call(RESPONSES, {**ASK, "previous_response_id": first["id"]}, key)
            running.settled(2)
            status, _, third = running.call(RESPONSES, {**ASK, "previous_response_id": second["id"]}, key)
            assert (status, third["model"]) == (200, "m")
            _, _, fresh = running.call(RESPONSES, ASK, key)
            assert fresh["model"] == "small"
            status, _, found = running.call(RESPONSES, {**ASK, "previous_response_id": fresh["id"]}, key)
            assert (status, found["model"]) == (200, "small")


@pytest.mark.parametrize("kind", ["sqlite", *servers.KINDS])
def test_replicas_remember_together_and_after_a_restart(tmp_path, kind, request):
    if kind == "sqlite":
        url = str(tmp_path / "ledger.db")
    else:
        request.getfixturevalue(f"{kind}_process")
        url = servers.shared(kind)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with Upstream(m=Responses()) as upstream:
        text = toml([("one", upstream.url, ["m"], "")], ledger=url, cap=CAP)
        with Running(tmp_path / "a", text) as one, Running(tmp_path / "b", text) as two:
            key = one.key("all:1000000")
            _, _, found = one.call(RESPONSES, ASK, key)
            for _ in range(5):
                body = {**ASK, "previous_response_id": found["id"]}
                for running in (two, one):
                    status, _, found = running.call(RESPONSES, body, key)
                    assert status == 200, found
        with Running(tmp_path / "a", text) as again:
            assert again.call(RESPONSES, {**ASK, "previous_response_id": found["id"]}, key)[0] == 200


def test_what_the_provider_does_not_store_is_not_remembered(running):
    key = running.key("all:100000")
    _, _, first = running.call(RESPONSES, {**ASK, "store": False}, key)
    status, _, found = running.call(RESPONSES, {**ASK, "previous_response_id": first["id"]}, key)
    assert (status, found["error"]["code"]) == (400, "not_bounded")


def test_an_answer_is_handed_over_though_it_cannot_be_remembered(running, monkeypatch, caplog):
    def gone(*_):
        raise LedgerUnavailable("the store is gone")

    key = running.key("all:100000")
    monkeypatch.setattr(running.gateway.store, "keep_answer", gone)
    status, _, first = running.call(RESPONSES, ASK, key)
    assert status == 200
    assert "is not remembered" in caplog.text
    assert running.call(RESPONSES, {**ASK, "previous_response_id": first["id"]}, key)[0] == 400
    monkeypatch.setattr(running.gateway.store, "answers", gone)
    assert running.call(RESPONSES, {**ASK, "previous_response_id": first["id"]}, key)[0] == 503


def test_stored_responses_are_read_and_deleted_by_their_own_key_only(running):
    make = {"base_url": running.url, "max_retries": 0}
    mine = openai.OpenAI(api_key=running.key("all:100000"), **make)
    other = openai.OpenAI(api_key=running.key("all:100000", path="else"), **make)
    first = mine.responses.create(**ASK)
    running.settled(1)
    spent = running.spent()
    assert mine.responses.retrieve(first.id).usage == first.usage
    assert mine.responses.retrieve(first.id, include=["reasoning.encrypted_content"]).id == first.id
    assert [item.type for item in mine.responses.input_items.list(first.id, limit=5)][1:] == [
        "reasoning", "function_call",
    ]  # fmt: skip
    assert mine.responses.cancel(first.id).id == first.id
    gets = list(running.upstream.gets)
    assert gets == [f"{RESPONSES}/{first.id}", f"{RESPONSES}/{first.id}?include%5B%5D=reasoning.encrypted_content",
                    f"{RESPONSES}/{first.id}/input_items?limit=5"]  # fmt: skip
    for ask in (
        other.responses.retrieve,
        other.responses.delete,
        other.responses.cancel,
        other.responses.input_items.list,
    ):
        with pytest.raises(openai.NotFoundError, match="is remembered for this key"):
            ask(first.id)
    with pytest.raises(openai.NotFoundError):
        mine.responses.retrieve(first.output[0].id)  # an item is no response
    with pytest.raises(openai.BadRequestError, match="'stream' is not passed on"):
        list(mine.responses.retrieve(first.id, stream=True))
    assert running.upstream.gets == gets
    mine.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        mine.responses.retrieve(first.id)
    assert running.spent() == spent
    assert len(running.settled()) == 1
    key = mine.api_key
    assert running.call(f"{RESPONSES}/{first.id}", None, key, "PUT")[0] == 405
    assert running.call(f"{RESPONSES}/compact", {"model": "m"}, key)[0] == 404
    for path in ("..", ".", "a/b", "%2e%2e", f"{first.id}/cancel/x"):
        assert running.call(f"{RESPONSES}/{path}", None, key)[0] == 404
    assert running.call(f"{RESPONSES}/{first.id}", None, "bk-none")[0] == 401
