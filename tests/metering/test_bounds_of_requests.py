"""What a request can cost at most: searches by presence, the client's own tools, documents, caches, thinking, fees."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction

import pytest

from budgeteer import Usage
from budgeteer.core.errors import InvalidInput, UnknownPrice
from budgeteer.metering.call import Metering
from budgeteer.metering.estimate import Bounds, count_text, worst_case
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.reading import Reading
from budgeteer.metering.settlement import Answer
from budgeteer.metering.thinking import asks
from budgeteer.metering.tokenizer import load
from budgeteer.metering.tools import UNLIMITED, uses_asked, uses_told
from budgeteer.prices import Price, Rates, litellm, of, user

HI = [{"role": "user", "content": "Hi"}]
NONE = Bounds(overhead=0)


def size(**prompt):
    return len(json.dumps(prompt, ensure_ascii=False).encode())


# searches


@pytest.mark.parametrize(
    "body",
    [
        {"web_search_options": {}}, {"search_parameters": {}}, {"enable_search": True},
        {"web_search": {"enable": True}}, {"web_search": {}}, {"enable_search": 1}, {"search_options": {}},
        {"search_parameters": {"mode": "auto"}},
        {"web_search": {"enable": False, "count": 5}}, {"container": {}}, {"tools": {"web_search": {}}},
    ],
)  # fmt: skip
def test_a_search_is_switched_on_by_presence(body):
    with pytest.raises(InvalidInput, match="give max_input"):
        worst_case({"messages": HI, "max_tokens": 1, **body})


@pytest.mark.parametrize(
    "body",
    [
        {"web_search_options": None}, {"enable_search": False}, {"web_search": {"enable": False}},
        {"search_parameters": {"mode": "off"}}, {"mcp_servers": []}, {"previous_response_id": ""}, {"tools": []},
    ],
)  # fmt: skip
def test_what_is_switched_off_is_no_search(body):
    assert worst_case({"messages": HI, "max_tokens": 1, **body}).input < 400


# tools


@pytest.mark.parametrize(
    ("tool", "published"),
    [
        ({"type": "bash_20250124", "name": "bash"}, 245),
        ({"type": "text_editor_20250728", "name": "e", "max_characters": 9}, 700),
        ({"type": "memory_20250818", "name": "memory"}, 0),
        ({"type": "computer_20250124", "name": "c", "display_width_px": 1, "display_height_px": 1}, 735 + 499),
        ({"type": "local_shell"}, 0),
        ({"type": "apply_patch"}, 0),
        ({"type": "shell", "environment": {"type": "local"}}, 0),
        ({"type": "computer_use_preview", "environment": "browser", "display_width": 1, "display_height": 1}, 0),
    ],
)
def test_a_tool_that_the_client_runs_is_bounded_with_what_it_adds(tool, published):
    found = worst_case({"messages": HI, "tools": [tool], "max_tokens": 1}, NONE).input
    assert size(messages=HI, tools=[tool]) + max(published, 500) <= found < 4_000


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "shell"}, {"type": "shell", "environment": {"type": "container_auto"}}, {"type": "web_search"},
        {"type": "code_interpreter"}, {"type": "bash_code_execution_20250825"}, {"type": "computers"}, {"type": 3},
    ],
)  # fmt: skip
def test_a_tool_that_the_provider_runs_or_nobody_knows_needs_a_bound(tool):
    with pytest.raises(InvalidInput, match="give max_input"):
        worst_case({"messages": HI, "tools": [tool], "max_tokens": 1})


def test_what_the_clients_tools_answer_is_text_and_its_screenshots_are_pictures():
    items = [
        {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "x" * 500, "stderr": "", "outcome": {}}]},
        {"type": "local_shell_call_output", "id": "l", "output": "y" * 500},
        {"type": "apply_patch_call_output", "call_id": "c", "status": "completed", "output": "done"},
    ]
    shot = {"type": "computer_screenshot", "image_url": "https://example.com/" + "x" * 900}
    call = {"type": "computer_call_output", "call_id": "c", "output": shot}
    bounds = Bounds(overhead=0, image=7_000)
    text = worst_case({"input": items, "max_output_tokens": 1}, bounds).input
    assert text == size(input=items)
    assert text + 7_000 < worst_case({"input": [*items, call], "max_output_tokens": 1}, bounds).input < text + 7_300


def test_margins_of_tools_are_of_tools_only():
    tools = [{"name": "t", "input_schema": {"type": "object"}}]
    text = [{"role": "user", "content": "x" * 10_000}]
    bounds = Bounds(overhead=0, tools_margin=Fraction(2))
    assert worst_case({"messages": text, "max_tokens": 1}, bounds).input == size(messages=text)
    found = worst_case({"messages": text, "tools": tools, "max_tokens": 1}, bounds).input
    assert found == size(messages=text, tools=tools) + size(tools=tools) + 1_000  # Claude's prompt for tools
    with pytest.raises(InvalidInput, match=r"Bounds.tools_margin is 0.5"):
        Bounds(tools_margin=0.5)


# documents


def test_a_document_of_text_is_text():
    def asked(source, **more):
        part = {"type": "document", "source": source, **more}
        return {"messages": [{"role": "user", "content": [part]}], "max_tokens": 1}

    plain = asked({"type": "text", "media_type": "text/plain", "data": "x" * 1000}, title="t", context="c")
    assert worst_case(plain, NONE).input == size(messages=plain["messages"])
    cited = asked({"type": "text", "media_type": "text/plain", "data": "x" * 1000}, citations={"enabled": True})
    assert worst_case(cited, NONE).input == size(messages=cited["messages"]) + 4_000
    parts = asked({"type": "content", "content": [{"type": "text", "text": "a"}]})
    assert worst_case(parts, NONE).input == size(messages=parts["messages"])
    for source in (
        {"type": "base64", "media_type": "application/pdf", "data": "AA"}, {"type": "url", "url": "https://x.org/a"},
        {"type": "file", "file_id": "f"}, {"type": "text", "data": {"file_id": "f"}}, {"type": "text", "file_id": "f"},
        {"type": "content", "content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}, None,
    ):  # fmt: skip
        with pytest.raises(InvalidInput, match="give max_input"):
            worst_case(asked(source))


# a tokenizer


def test_a_tokenizer_bounds_a_prompt_by_its_texts(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    tokens = load("tokenizer.json", tmp_path)
    assert tokens("a a a b") == 4
    body = {"messages": [{"role": "user", "content": "word " * 10_000}], "max_tokens": 1}
    assert 10_000 <= worst_case(body, Bounds(tokens=tokens, overhead=0)).input < 10_050
    assert worst_case(body, NONE).input > 50_000
    with pytest.raises(InvalidInput, match="no tokenizer that can be read"):
        load("missing.json", tmp_path)


def test_tiktoken_fetches_no_vocabulary_when_a_request_comes(monkeypatch):
    tiktoken = pytest.importorskip("tiktoken")
    asked = []

    def get(name):
        asked.append(name)
        if name == "o9":
            raise OSError("no network")
        ranks = {bytes([i]): i for i in range(256)} | {b"wo": 256, b"rd": 257, b"word": 258}
        return tiktoken.Encoding("t", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={"<|end|>": 259})

    monkeypatch.setattr(tiktoken, "get_encoding", get)
    tokens = load("test-encoding")
    assert [tokens("word word"), tokens("<|end|>"), asked] == [3, 7, ["test-encoding"]]
    with pytest.raises(InvalidInput, match="TIKTOKEN_CACHE_DIR"):
        load("o9")


def test_a_run_of_one_kind_is_cut_before_it_is_counted():
    longest = []
    text = "x" * 100_000 + " " * 1000 + "words of a text " * 100
    assert count_text(text, lambda piece: longest.append(len(piece)) or len(piece)) == len(text)
    assert max(longest[:-1]) == 256
    assert longest[-1] == 1600  # what has no long run stays whole


# rates


CLAUDE = "claude-x"
RATES = Rates(
    input=Decimal(3), output=Decimal(15), cached=Decimal("0.3"), written=Decimal("3.75"), written_long=Decimal(6)
)
LONG = Rates(
    input=Decimal(6), output=Decimal("22.5"), cached=Decimal("0.6"), written=Decimal("7.5"), written_long=Decimal(12)
)
PRICES = of({CLAUDE: Price(RATES, ((200_000, LONG),), fees={"web_search": Decimal("0.01")})})


@pytest.mark.parametrize(
    ("more", "model", "rate"),
    [
        ({}, CLAUDE, 3),
        ({"messages": [{"role": "user", "content": 'what is "cache_control": {"ttl": "1h"}?'}]}, CLAUDE, 3),
        ({"cache_control": {"type": "ephemeral"}}, CLAUDE, Decimal("3.75")),
        ({"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "5m"}}]}, CLAUDE,
         Decimal("3.75")),
        ({"tools": [{"name": "t", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}, CLAUDE, 6),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"ttl": "1h"}}]}]},
         CLAUDE, 6),
        ({}, "gpt-x", 6),  # whoever writes to a cache without being asked
    ],
)  # fmt: skip
def test_the_rate_of_the_cache_counts_where_it_can_be_written(more, model, rate):
    worst = worst_case({"model": model, "messages": HI, "max_tokens": 1, **more}, NONE)
    assert PRICES.worst(worst, CLAUDE) == (worst.input * rate + 15) * 10**6


def test_the_rates_of_long_prompts_count_where_the_bound_reaches_them():
    at = Usage(input=200_000, output=0, written=0, written_long=0)
    assert PRICES.worst(at, CLAUDE) == 200_000 * 3 * 10**6
    above = Usage(input=200_001, output=0, written=0, written_long=0)
    assert PRICES.worst(above, CLAUDE) == 200_001 * 6 * 10**6


# thinking


@pytest.mark.parametrize(
    "body",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 5}}, {"reasoning": {"max_tokens": 5}},
        {"thinking_token_budget": 5}, {"thinking_budget": 5}, {"thinking_budget_tokens": 5}, {"reasoning_budget": 5},
        {"reasoning_budget_tokens": 5}, {"custom_params": {"thinking_budget": 5}},
        {"nvext": {"max_thinking_tokens": 5}}, {"max_thinking_tokens": 5},
        {"chat_template_kwargs": {"thinking_budget": 5}}, {"enable_thinking": True},
        {"output_config": {"task_budget": {"type": "tokens", "total": 20_000}}}, {"reasoning": {}},
        {"thinking_budget": -1},
    ],
)  # fmt: skip
def test_what_asks_for_thinking_may_hide_more_than_it_shows(body):
    assert asks(body)
    assert Reading("chat", body, Metering(None), False).hides
    assert not asks(dict.fromkeys(body))


@pytest.mark.parametrize(
    "body", [{}, {"thinking_budget": 0}, {"reasoning": {"enabled": False}}, {"thinking": {"type": "disabled"}}]
)
def test_what_asks_for_none_hides_none(body):
    assert not asks(body)


def test_a_larger_budget_of_thinking_beside_the_cap_is_counted():
    body = {"messages": HI, "max_tokens": 10, "n": 2, "nvext": {"max_thinking_tokens": 5_000}}
    assert worst_case(body, Bounds(hidden_reasoning=300)).output == 2 * 5_010
    assert worst_case(body, Bounds(hidden_reasoning=9_000)).output == 2 * 9_010
    assert worst_case(body).output == 20  # a provider that caps its thoughts with the answer


# fees


@pytest.mark.parametrize(
    ("body", "uses"),
    [
        ({"tools": [{"type": "web_search_20250305", "max_uses": 3}]}, {"web_search": 3}),
        ({"tools": [{"type": "web_search_20260318"}]}, {"web_search": UNLIMITED}),
        ({"tools": [{"type": "web_search", "max_uses": 3}], "input": "x"}, {"web_search": UNLIMITED}),
        ({"tools": [{"type": "web_search_preview"}], "input": "x", "max_tool_calls": 2}, {"web_search": 2}),
        ({"tools": [{"type": "file_search"}, {"type": "image_generation"}], "input": "x", "max_tool_calls": 4},
         {"file_search": 4, "image": 4}),
        ({"tools": [{"type": "web_search"}], "messages": HI, "max_tool_calls": 4}, {"web_search": UNLIMITED}),
        ({"tools": [{"type": "code_interpreter"}], "input": "x"}, {"code_session": 1}),
        ({"tools": [{"type": "web_search_20250305", "max_uses": -1}]}, {"web_search": UNLIMITED}),
        ({"tools": [{"type": "bash_20250124"}, {"type": "function"}, {"type": "web_fetch_20250910"}]}, {}),
        ({"tools": [{"type": "namespace", "tools": [{"type": "web_search"}]}], "input": "x"},
         {"web_search": UNLIMITED}),
    ],
)  # fmt: skip
def test_uses_that_a_request_allows(body, uses):
    assert uses_asked(body, False) == uses


def test_a_chat_that_searches_does_so_once_a_choice():
    assert uses_asked({"web_search_options": {}, "n": 3}, True) == {"web_search": 3}
    assert uses_asked({"search_parameters": {"max_search_results": 9}}, True) == {"web_search": 9}
    assert uses_asked({"search_parameters": {}}, True) == {"web_search": UNLIMITED}


@pytest.mark.parametrize(
    ("operation", "body", "told"),
    [
        ("messages", {"usage": {"output_tokens": 1, "server_tool_use": {"web_search_requests": 2}}}, {"web_search": 2}),
        ("messages", {"usage": {"output_tokens": 1}}, {"web_search": 0}),
        ("chat", {"usage": {"server_tool_use": {"web_search_requests": 2}}}, {"web_search": 2}),
        ("chat", {"usage": {"num_sources_used": 7}}, {"web_search": 7}),
        ("chat", {"usage": {"total_tokens": 7}}, {}),
        ("responses", {"usage": {"output_tokens": 1}, "output": [
            {"type": "web_search_call", "action": {"type": "search"}}, {"type": "web_search_call"},
            {"type": "web_search_call", "action": {"type": "open_page"}}, {"type": "file_search_call"},
            {"type": "code_interpreter_call", "container_id": "a"},
            {"type": "code_interpreter_call", "container_id": "a"}, {"type": "message"}, 3]},
         {"web_search": 2, "file_search": 1, "image": 0, "code_session": 1}),
        ("responses", {"output": [{"type": "web_search_call"}]}, {}),
    ],
)  # fmt: skip
def test_uses_that_an_answer_tells(operation, body, told):
    assert uses_told(operation, body) == told


def test_fees_are_reserved_by_the_limit_and_charged_by_the_count():
    metering = Metering(None, ("money",), PRICES, bounds=Bounds(max_input=1000, overhead=0))
    body = {
        "model": CLAUDE, "messages": HI, "max_tokens": 10,
        "tools": [{"type": "web_search_20250305", "name": "s", "max_uses": 5}],
    }  # fmt: skip
    planned = metering.plan("anthropic", "messages", CLAUDE, worst_case(body, metering.bounds))
    tokens = (1000 * 3 + 10 * 15) * 10**6
    assert planned.amounts == {"money": tokens + 5 * 10**10}
    reading = Reading("messages", body, metering, False)

    def charged(**usage):
        found = {"model": CLAUDE, "content": [], "usage": {"input_tokens": 100, "output_tokens": 10, **usage}}
        return metering.settlement(planned, reading.answer(200, json.dumps(found).encode()))

    spent = (100 * 3 + 10 * 15) * 10**6
    assert charged(server_tool_use={"web_search_requests": 2}).amounts == {"money": spent + 2 * 10**10}
    assert charged().amounts == {"money": spent}
    unknown = Answer(Usage(input=100, output=10), outcome=Outcome.CUT)  # a stream that was cut before it told
    settled = metering.settlement(planned, unknown)
    assert (settled.amounts, settled.estimated) == ({"money": spent + 5 * 10**10}, True)
    assert metering.settlement(planned, Answer(outcome=Outcome.UNKNOWN)).amounts == planned.amounts
    assert metering.settlement(planned, Answer(outcome=Outcome.REJECTED)).amounts == {"money": 0}


def told(reading, *events):
    """What a stream of events comes to."""
    for event in events:
        reading.event(json.dumps(event).encode())
    return reading.at_end()


def test_streams_tell_of_uses_at_their_end():
    metering = Metering(None, ("money",), PRICES, bounds=Bounds(max_input=1000, overhead=0))
    body = {
        "model": CLAUDE, "messages": HI, "max_tokens": 10, "stream": True,
        "tools": [{"type": "web_search_20250305", "name": "s", "max_uses": 5}],
    }  # fmt: skip
    planned = metering.plan("anthropic", "messages", CLAUDE, worst_case(body, metering.bounds))
    start = {"type": "message_start", "message": {"model": CLAUDE, "usage": {"input_tokens": 100, "output_tokens": 1}}}
    text = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "found"}}
    end = {"type": "message_delta", "usage": {"output_tokens": 10, "server_tool_use": {"web_search_requests": 2}}}

    def fees(*events):
        answer = told(Reading("messages", body, metering, False), start, text, *events)
        settled = metering.settlement(planned, answer)
        made = settled.usage.output
        return settled.amounts["money"] - (100 * 3 + made * 15) * 10**6

    assert fees(end, {"type": "message_stop"}) == 2 * 10**10
    assert fees() == 5 * 10**10  # cut before it told

    asked = {"model": "m", "input": "Hi", "stream": True, "max_tool_calls": 5, "tools": [{"type": "web_search"}]}
    output = [{"type": "web_search_call", "action": {"type": "search"}}]
    usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
    done = {"type": "response.completed", "response": {"model": "m", "output": output, "usage": usage}}
    answer = told(Reading("responses", asked, metering, False), done)
    assert answer.usage is not None
    assert dict(answer.usage.counts)["web_search"] == 1


def test_fees_without_a_limit_or_a_price_are_refused_where_money_is_counted():
    bounds = Bounds(max_input=1000)
    body = {"model": CLAUDE, "messages": HI, "max_tokens": 1, "tools": [{"type": "web_search_20250305", "name": "s"}]}
    worst = worst_case(body, bounds)
    money = Metering(None, ("money",), PRICES, bounds)
    with pytest.raises(InvalidInput, match="give the tool max_uses"):
        money.plan("anthropic", "messages", CLAUDE, worst)
    assert Metering(None, ("all",), None, bounds).plan("anthropic", "messages", CLAUDE, worst).amounts["all"] > 1000
    bare = of({CLAUDE: Price(RATES)})
    with pytest.raises(UnknownPrice, match=r"fees.web_search = DOLLARS"):
        Metering(None, ("money",), bare, bounds).plan("anthropic", "messages", CLAUDE, worst)
    free = of({CLAUDE: Price(RATES, fees={"web_search": Decimal(0)})})
    metering = Metering(None, ("money",), free, bounds)
    planned = metering.plan("anthropic", "messages", CLAUDE, worst)
    answer = Answer(Usage(input=1, output=1), outcome=Outcome.OK)
    assert metering.settlement(planned, answer).amounts["money"] == 18 * 10**6


def test_fees_of_the_tables(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('[models.m]\ninput = 1\noutput = 2\n[models.m.fees]\nweb_search = 0.01\n[models.m.services.batch]\n'
                   "input = 1\noutput = 1\n")  # fmt: skip
    found = user.load(own)
    assert found.price("m").fees == found.price("m", "batch").fees == {"web_search": Decimal("0.01")}
    for fee in ("pages = 1", "web_search = -1", 'web_search = "1"', "web_search = 101", "web_search = true"):
        own.write_text(f"[models.m]\ninput = 1\noutput = 2\n[models.m.fees]\n{fee}\n")
        with pytest.raises(InvalidInput, match="fee"):
            user.load(own)
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps({"m": {
        "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "code_interpreter_cost_per_session": 0.03,
        "file_search_cost_per_1k_calls": 2.5,
        "search_context_cost_per_query": {"search_context_size_low": 0.03, "search_context_size_high": 0.05},
    }}))  # fmt: skip
    assert litellm.load(theirs).price("m").fees == {
        "code_session": Decimal("0.03"), "file_search": Decimal("0.0025"), "web_search": Decimal("0.05"),
    }  # fmt: skip


def test_fees_of_the_shipped_table():
    genai = pytest.importorskip("budgeteer.prices.genai")
    pytest.importorskip("genai_prices")
    table = genai.load()
    assert table.price("claude-sonnet-4-5").fees["web_search"] == Decimal("0.01")
    assert table.price("gpt-4o").fees["file_search"] == Decimal("0.0025")


@pytest.mark.parametrize(
    ("budget", "most"),
    [
        (8e3, 8_000),
        ("8000", 8_000),
        (" 8e3", 8_000),
        (7999.5, 8_000),
        ("many", 300),
        (True, 300),
        (-1, 300),
        ([9], 300),
    ],
)
def test_a_budget_of_thinking_counts_as_servers_read_it(budget, most):
    body = {"model": "m", "max_tokens": 10, "messages": HI, "thinking": {"type": "enabled", "budget_tokens": budget}}
    assert worst_case(body, Bounds(hidden_reasoning=300)).output == 10 + most


@pytest.mark.parametrize("budget", [1e300, float("inf"), 2**63 - 1])
def test_a_budget_of_thinking_beyond_all_numbers_is_refused(budget):
    with pytest.raises(InvalidInput, match=r"Usage\.output"):
        worst_case({"max_tokens": 10, "messages": HI, "thinking_budget": budget}, Bounds(hidden_reasoning=300))


@pytest.mark.parametrize(
    "asks",
    [
        {"cache_control_injection_points": [{"location": "message", "role": "system"}]},
        {"system": [{"type": "text", "text": "Hi", "cacheControl": {"type": "ephemeral"}}]},
        {"system": [{"text": "Hi"}, {"cachePoint": {"type": "default"}}]},
    ],
)
def test_any_spelling_of_what_asks_for_the_cache_counts_its_rate(asks):
    assert worst_case({"model": "claude-x", "max_tokens": 1, "messages": HI, **asks}, NONE).written is None


def test_tools_within_namespaces_of_any_level_have_their_fees():
    tool = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    for _ in range(3):
        tool = {"type": "namespace", "name": "n", "tools": [tool]}
    assert uses_asked({"tools": [tool]}, False) == {"web_search": 3}


@pytest.mark.parametrize(
    ("model", "uses"),
    [
        ("gpt-4o-search-preview", 2), ("gpt-4o-mini-search-preview-2025-03-11", 2), ("openai/gpt-5-search-api", 2),
        ("gpt-4o", 0), ("my-search-preview", 0), ("gpt-4o-research", 0),
    ],
)  # fmt: skip
def test_a_model_that_always_searches_has_the_fee_of_each_choice(model, uses):
    body = {"model": model, "max_tokens": 1, "n": 2, "messages": HI}
    assert dict(worst_case(body, NONE).counts).get("web_search", 0) == uses
