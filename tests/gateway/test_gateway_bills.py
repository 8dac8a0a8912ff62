"""What is billed where usage and errors stand elsewhere, what failures cost, default caps, and learnt limits."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.cli import main  # noqa: E402
from budgeteer.core.usage import Usage  # noqa: E402
from budgeteer.metering.settlement import Planned  # noqa: E402
from budgeteer.metering.shown import AROUND, ON_THE_WAY  # noqa: E402
from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.upstream import Upstream, answer, begin, echo, end, error, event, hang, usage  # noqa: E402

PLANNED = Planned("openai", "chat", "m", "", Usage(input=9, output=100), Usage(), {}, cap=100)
HI = [{"role": "user", "content": "Hi"}]


def ask(model="m", **more):
    return {"model": model, "messages": HI, "max_tokens": 20, **more}


def says(*bodies, status=200):
    """A whole body, or the events of a stream if there are several."""

    async def step(server, writer, path, body):
        if len(bodies) == 1:
            return await answer(writer, status, bodies[0])
        await begin(writer)
        for one in bodies:
            await event(writer, one, one.get("type") if isinstance(one, dict) else None)
        return await end(writer)

    return step


def chunk(text="", index=0, **more):
    return {"id": "c", "model": "m", "choices": [{"index": index, "delta": {"content": text}, **more}]}


def chat(text="Hello", **more):
    return {"id": "c", "choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}], **more}


STREAM = {"stream": True}
USAGES = {
    "of a choice": (
        {},
        [{"id": "c", "choices": [{"index": 0, "message": {"content": "a"}, "usage": usage(7, 5)}]}],
        12,
    ),
    "of a choice, streamed": (STREAM, [chunk("word "), chunk(usage=usage(7, 5)), "[DONE]"], 12),
    "x_groq": (STREAM, [chunk("word "), {"choices": [], "x_groq": {"id": "r", "usage": usage(7, 5)}}, "[DONE]"], 12),
    "of each of two choices": (
        {**STREAM, "n": 2},
        [chunk("aa "), chunk("bb ", 1), chunk(usage=usage(7, 5)), chunk("", 1, usage=usage(7, 6)), "[DONE]"],
        18,
    ),
    "cumulative, with a pause": (
        STREAM,
        [{**chunk("word "), "usage": usage(7, n)} for n in (5, 5, 6)] + ["[DONE]"],
        13,
    ),
}


@pytest.mark.parametrize("name", USAGES)
def test_usage_in_other_places_is_billed_exactly(tmp_path, name):
    change, bodies, billed = USAGES[name]
    with Upstream(m=says(*bodies)) as upstream, Running(tmp_path, toml([("one", upstream.url, ["m"], "")])) as running:
        assert running.call("/v1/chat/completions", ask(**change), running.key("9000"))[0] == 200
        (record,) = running.settled(1)
        assert (record["units"]["all"], record["estimated"]) == (billed, 0)


def counting(then, ran):
    """A stream whose events tell the usage so far; after five words it hangs or drops, and ``ran`` more are billed."""

    async def step(server, writer, path, body):
        await begin(writer)
        for n in range(1, 6):
            await event(writer, {**chunk("word "), "usage": usage(7, n)})
        server.billed += 7 + 5 + ran
        return writer.close() if then == "drops" else await hang(server, writer, path, body)

    return step


@pytest.mark.parametrize("then", ["drops", "hangs"])
def test_a_usage_so_far_is_not_that_of_a_cut_answer(tmp_path, then):
    """What came after it, or goes on since only the gateway stopped, is billed as well."""
    text = [("one", "URL", ["m"], "idle_seconds = 1")]
    with (
        Upstream(m=counting(then, ran=15)) as upstream,
        Running(tmp_path, toml(text).replace("URL", upstream.url)) as running,
    ):
        assert running.call("/v1/chat/completions", ask(stream=True), running.key("9000"))[0] == 200
        (record,) = running.settled(1)
    assert (record["outcome"], record["estimated"]) == ("cut", 1)
    assert record["units"]["all"] == 7 + 20 == upstream.billed


@pytest.mark.parametrize(("declared", "charged"), [("bills_cost = true", 140_000_000), ("", 12 * 10**6)])
def test_the_cost_that_a_provider_says_is_charged_where_that_is_declared(tmp_path, declared, charged):
    (tmp_path / "p.toml").write_text('[models."m"]\ninput = 1\noutput = 1\n')
    said = chat(usage={**usage(7, 5), "cost": 0.00014})
    text = toml([("one", "URL", ["m"], declared)], kinds='["money"]')
    text = text.replace("shipped = false", 'shipped = false\nfiles = ["p.toml"]')
    with Upstream(m=says(said)) as upstream, Running(tmp_path, text.replace("URL", upstream.url)) as running:
        assert running.call("/v1/chat/completions", ask(), running.key("$1"))[0] == 200
        (record,) = running.settled(1)
        assert record["units"]["money"] == charged


BUSY = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
START = {
    "type": "message_start",
    "message": {"id": "m", "model": "m", "usage": {"input_tokens": 7, "output_tokens": 1}},
}
BROKE = {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."}}
ERRORS = {
    "body under 200": ("chat/completions", {}, says({"error": {"code": 429, "message": "slow down"}}), 429),
    "body under 200, streamed": ("chat/completions", STREAM, says({"error": {"code": 503, "message": "no"}}), 503),
    "first event": ("messages", STREAM, says(BUSY, {"type": "ping"}), 503),
    "501": ("chat/completions", {}, error(501), 502),
    "402": ("chat/completions", {}, error(402, message="Insufficient Balance of sk-team"), 502),
    "400 about the account": ("messages", {}, says(BROKE, status=400), 502),
    "429 about the account": (
        "chat/completions", {}, says({"error": {"code": "insufficient_quota", "message": "sk-team"}}, status=429), 502,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_in_place_of_an_answer_costs_nothing_and_another_upstream_answers(tmp_path, name):
    route, change, step, status = ERRORS[name]
    with Upstream(m=step) as bad, Upstream(m=echo()) as good:
        places = [("bad", bad.url, ["m"], "weight = 1000"), ("good", good.url, ["m"], "weight = 0")]
        for upstreams, wanted, calls in ((places[:1], status, 1), (places, 200, 2)):
            with Running(tmp_path, toml(upstreams)) as running:
                found, _, said = running.call(f"/v1/{route}", ask(**change), running.key("9000"))
                (record,) = running.settled(1)
            assert found == wanted
            assert not any(word in json.dumps(str(said)) for word in ("sk-team", "credit balance"))
            assert record["attempts"] == calls
            assert record["units"].get("all", 0) == (12 if wanted == 200 else 0)


def test_an_overload_after_the_start_of_a_message_costs_nothing_and_one_after_text_its_text(tmp_path):
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
    with (
        Upstream(m=says(START, BUSY), late=says(START, text, BUSY)) as upstream,
        Running(tmp_path, toml([("one", upstream.url, ["m", "late"], "")])) as running,
    ):
        key = running.key("9000")
        for model in ("m", "late"):
            assert "overloaded_error" in str(running.call("/v1/messages", ask(model, stream=True), key)[2])
        first, second = running.settled(2)
    assert first["units"]["all"] == 0
    assert first["outcome"] in ("cut", "failed")  # whether both events came in one piece
    assert second["units"]["all"] >= 8
    assert second["outcome"] == "cut"


def test_a_stream_that_says_an_error_and_that_it_is_done_is_cut(tmp_path):
    bodies = [chunk("word "), {"error": {"code": 402, "message": "insufficient credits of sk-team"}}, "[DONE]"]
    with (
        Upstream(m=says(*bodies)) as upstream,
        Running(tmp_path, toml([("one", upstream.url, ["m"], "")])) as running,
    ):
        _, _, said = running.call("/v1/chat/completions", ask(stream=True), running.key("9000"))
        (record,) = running.settled(1)
    assert (record["outcome"], b"sk-team" in said, b"stream_cut" in said) == ("cut", False, True)


@pytest.mark.parametrize(
    ("declared", "sent", "charged"),
    [("", 3, 3), ("breaker = 0", 9, 9), ('breaker = 0\nbills_failures = "never"', 9, 0),
     ('breaker = 0\nfailure_limits = ["all:150/hour"]', 2, 2)],
)  # fmt: skip
def test_an_upstream_that_answers_only_500_is_left_alone(tmp_path, declared, sent, charged):
    text = toml([("one", "URL", ["m"], declared)], server="retries = 0")
    with Upstream(m=error(500)) as upstream, Running(tmp_path, text.replace("URL", upstream.url)) as running:
        key = running.key("90000")
        found = [running.call("/v1/chat/completions", ask(), key)[0] for _ in range(9)]
        records = running.settled(9)
    worst = len(json.dumps(ask()).encode()) + 10 + 20
    assert found == [502] * sent + [503] * (9 - sent)
    assert upstream.calls == sent
    assert sum(record["units"].get("all", 0) for record in records) == charged * worst


def test_a_shut_upstream_is_tried_again_by_one_call(tmp_path):
    with (
        Upstream(m=error(500), good=echo()) as upstream,
        Running(tmp_path, toml([("one", upstream.url, ["m", "good"], "")], server="retries = 0")) as running,
    ):
        key = running.key("90000")
        for _ in range(3):
            running.call("/v1/chat/completions", ask(), key)
        status, headers, found = running.call("/v1/chat/completions", ask("good"), key)
        assert (status, found["error"]["code"], int(headers["retry-after"]) > 0) == (503, "upstream_shut", True)
        running.gateway.proxy.upstreams.backends[0].until = 0.0
        assert [running.call("/v1/chat/completions", ask("good"), key)[0] for _ in range(2)] == [200, 200]


def test_a_strict_server_gets_what_the_client_sent(tmp_path):
    text = toml([("one", "URL", ["m"], "stream_options = false")])
    with Upstream(m=echo()) as upstream, Running(tmp_path, text.replace("URL", upstream.url)) as running:
        running.call("/v1/chat/completions", ask(stream=True), running.key("9000"))
        (record,) = running.settled(1)
    assert upstream.bodies == [ask(stream=True)]
    assert record["estimated"] == 1
    assert record["units"]["all"] >= upstream.billed


@pytest.mark.parametrize(("declared", "cap"), [("", 5000), ("default_output = 100", 100)])
def test_a_default_cap_of_its_own(tmp_path, declared, cap):
    text = toml([("one", "URL", ["m"], "")], cap=5000) + f"\n{declared}"
    with Upstream(m=echo()) as upstream, Running(tmp_path, text.replace("URL", upstream.url)) as running:
        key, plain = running.key("90000"), {"model": "m", "messages": HI}
        _, headers, _ = running.call("/v1/chat/completions", plain, key)
        running.call("/v1/chat/completions", {**plain, "max_tokens": 5000}, key)  # the ceiling stays
        running.call("/v1/chat/completions", {**plain, "thinking_token_budget": 300}, key)
    assert [body["max_tokens"] for body in upstream.bodies] == [cap, 5000, min(5000, cap + 300)]
    assert headers["x-budgeteer-policy"] == f"cap={cap}"


@pytest.mark.parametrize(("declared", "sent"), [("", 3), ("default_output = 4096", 8)])
def test_eight_at_once_on_half_a_million_tokens(tmp_path, declared, sent):
    """With a ceiling of 128k three are admitted; a default cap of its own lets all of them pass."""
    text = toml([("one", "URL", ["m"], "")], cap=128_000) + f"\n{declared}"
    with Upstream(m=echo(delay=1.0)) as upstream, Running(tmp_path, text.replace("URL", upstream.url)) as running:
        key, barrier = running.key("500k"), threading.Barrier(8)

        def one(_):
            barrier.wait()
            return running.call("/v1/chat/completions", {"model": "m", "messages": HI}, key)[0]

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(one, range(8))) == [200] * sent + [429] * (8 - sent)
        assert upstream.calls == sent


def test_a_free_model_answers_after_an_overshoot_of_the_budget(tmp_path):
    (tmp_path / "p.toml").write_text(
        '[models."dear"]\ninput = 1\noutput = 100\n[models."free"]\ninput = 0\noutput = 0\n'
    )
    text = toml([("one", "URL", ["dear", "free"], "")], kinds='["money"]')
    text = text.replace("shipped = false", 'shipped = false\nfiles = ["p.toml"]')
    with (
        Upstream(dear=says(chat(usage=usage(7, 5000))), free=echo()) as upstream,
        Running(tmp_path, text.replace("URL", upstream.url)) as running,
    ):
        key = running.key("$0.01")
        found = [running.call("/v1/chat/completions", ask(name), key) for name in ("dear", "dear", "free", "dear")]
        records = running.settled(4)
    assert [status for status, _, _ in found] == [200, 402, 200, 402]
    assert [record["units"].get("money", 0) for record in records] == [500_007_000_000, 0, 0, 0]
    assert records[0]["overshoot"]["money"] == 500_007_000_000 - records[0]["reserved"]["money"]
    assert found[2][1]["x-budgeteer-left"] == "money=-0.490007"


def test_a_learnt_default_cap_grows_where_answers_are_cut_short_and_survives_a_restart(tmp_path):
    text = toml([("one", "URL", ["m"], "")], cap=5000, ledger=str(tmp_path / "l.db")) + '\ndefault_output = "learnt"'
    plain = {"model": "m", "messages": HI}
    with Upstream(m=echo(words=5)) as upstream:
        with Running(tmp_path, text.replace("URL", upstream.url)) as running:
            key, learnt = running.key("9m"), running.gateway.proxy.booking.learnt
            running.call("/v1/chat/completions", plain, key)
            running.settled(1)
            (model,) = running.config.upstreams[0].models
            for _ in range(120):
                learnt.ended(PLANNED, model, 50, True)
            running.call("/v1/chat/completions", plain, key)
        with Running(tmp_path, text.replace("URL", upstream.url)) as running:
            running.call("/v1/chat/completions", plain, key)
            for _ in range(5):  # of 126 answers, 1 in 100 may be cut short
                running.gateway.proxy.booking.learnt.ended(PLANNED, model, 100, True)
            running.call("/v1/chat/completions", plain, key)
    assert [body["max_tokens"] for body in upstream.bodies] == [5000, 100, 100, 5000]


def test_a_learnt_limit_holds_what_calls_use_and_a_hard_one_their_worst_case(tmp_path):
    text = toml([("one", "URL", ["m"], "")], kinds='["all", "learnt.all"]', cap=5000)
    with Upstream(m=echo()) as upstream, Running(tmp_path, text.replace("URL", upstream.url)) as running:
        key = running.key("learnt 30k")
        for _n in range(40):
            assert running.call("/v1/chat/completions", ask(max_tokens=5000), key)[0] == 200
        running.settled(40)
        lines = [line.split("\t") for line, _ in running.gateway.ledger.lines()]
        held = [line[5].split() for line in lines if line[2] == "open"]
        first, last = (
            {kind: int(units) for kind, units in zip(held[n][::2], held[n][1::2], strict=True)} for n in (0, -1)
        )
        assert first["all"] == first["learnt.all"] == last["all"] > 5000
        assert last["learnt.all"] < 100
        assert running.spent(kind="learnt.all") == running.spent(kind="all") == upstream.billed == 40 * 12


def long_stream(tmp_path, text):
    """What a stream of 3,000 words brings a learnt limit of 1,000 tokens after 30 short calls, and its record.

    ``text`` is the file of the gateway, with URL for the upstream's address.
    """
    with (
        Upstream(m=echo(), long=echo(words=3000, pause=0.0001)) as upstream,
        Running(tmp_path, text.replace("URL", upstream.url)) as running,
    ):
        key = running.key("learnt 6500")
        for _ in range(30):
            assert running.call("/v1/chat/completions", ask(max_tokens=5000), key)[0] == 200
        running.settled(30)
        poor = running.key("learnt 1000", path="poor")
        _, _, said = running.call("/v1/chat/completions", ask("long", stream=True, max_tokens=5000), poor)
        record = running.settled(31)[-1]
    return said, record


@pytest.mark.parametrize(("declared", "cut"), [("cancels = true", True), ("", False)])
def test_a_stream_grows_its_learnt_reservation_and_is_cut_where_the_budget_ends(tmp_path, declared, cut):
    text = toml([("one", "URL", ["m", "long"], declared)], kinds='["all", "learnt.all"]', cap=5000)
    text = text.replace('name = "long"', 'name = "long"\nprice = "m"')
    said, record = long_stream(tmp_path, text)
    assert (b"stream_cut" in said, record["outcome"]) == ((True, "cut") if cut else (False, "ok"))
    assert (400 < said.count(b"word") <= 1000) == cut
    assert said.count(b"word") == 3000 or cut


def test_a_cut_stream_is_charged_its_tokens_where_the_file_names_the_tokenizer_of_its_model(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"word": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    text = toml([("one", "URL", ["m", "long"], "cancels = true")], kinds='["all", "learnt.all"]', cap=5000)
    text = text.replace('name = "long"', 'name = "long"\nprice = "m"')
    text = text.replace("overhead = 10", 'overhead = 10\ntokenizer = "tokenizer.json"')
    said, record = long_stream(tmp_path, text)
    sent = said.count(b"word")
    assert (record["outcome"], 400 < sent <= 1000) == ("cut", True)
    assert sent + AROUND + ON_THE_WAY <= record["output"] < 1.2 * sent + AROUND + ON_THE_WAY


async def strict(server, writer, path, body):
    """A server that refuses what it does not know."""
    await (error(422) if "stream_options" in body else echo())(server, writer, path, body)


@pytest.mark.parametrize(
    ("step", "declared", "well", "line"),
    [
        (echo(), "", True, "knows stream_options\n"),
        (strict, "", False, "refuses stream_options; write stream_options = false"),
        (strict, "stream_options = false", True, "refuses stream_options, as declared"),
        (echo(), "stream_options = false", True, "stream_options = true would have its streams charged exactly"),
        (echo(reports=False), "", True, "says no usage"),
        (error(500), "", True, ""),
    ],
)
def test_the_check_asks_whether_an_upstream_knows_stream_options(tmp_path, capsys, step, declared, well, line):
    with Upstream(m=step) as upstream:
        (tmp_path / "g.toml").write_text(toml([("one", upstream.url, ["m"], declared)]))
        assert main(["serve", "--config", str(tmp_path / "g.toml"), "--check"]) == (0 if well else 1)
    assert line in capsys.readouterr().out
