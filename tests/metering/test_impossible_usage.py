"""Usage that cannot be, or that is said in another way: estimated and marked, or read."""

from __future__ import annotations

import json

import pytest

from budgeteer import Usage
from budgeteer.metering.call import Metering
from budgeteer.metering.estimate import Bounds, least_tokens, texts_of, too_few, worst_case
from budgeteer.metering.reading import Reading
from helpers.purse import Purse

PROSE = "The quick brown fox jumps over the lazy dog and runs away from it. "


def settled(operation, body, answer, chunks=()):
    """What is charged for an answer, or for a stream of chunks."""
    metering = Metering(Purse(all=10**9), bounds=Bounds(overhead=10))
    worst = worst_case(body, metering.bounds) if operation != "embeddings" else Usage(input=30_000, output=0)
    planned = metering.plan("openai", operation, "m", worst)
    reading = Reading(operation, body, metering, False)
    if chunks:
        for chunk in chunks:
            reading.event(chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode())
        return metering.settlement(planned, reading.at_end())
    return metering.settlement(planned, reading.answer(200, json.dumps(answer).encode()))


def chat(prompt, answer, usage, **more):
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 20_000, **more}
    return body, {"choices": [{"index": 0, "message": {"content": answer}}], "usage": usage, "model": "m"}


@pytest.mark.parametrize(
    ("said", "read", "made"),
    [
        ((0, 9), True, False),  # 10,000 bytes read for nothing
        ((5, 2500), True, False),
        ((2500, 1), False, True),  # 10,000 bytes written in one token
        ((0, 0), True, True),
        ((2500, 2500), False, False),
        ((800, 800), False, False),  # 12.5 bytes a token: odd, and not impossible
    ],
)
def test_a_count_below_what_the_text_must_have_is_an_estimate(said, read, made):
    prompt = (PROSE * 150)[:10_000]
    answer = prompt if said[1] != 9 else "Nine tokens or so of an answer"
    usage = {"prompt_tokens": said[0], "completion_tokens": said[1]}
    found = settled("chat", *chat(prompt, answer, usage))
    assert found.estimated is (read or made)
    assert (found.usage.input > 10_000) is read
    assert found.usage.input == said[0] or read
    assert (found.usage.output >= 10_000) is made
    assert found.usage.output == said[1] or made
    body, _ = chat(prompt, answer, usage)
    pieces = [{"choices": [{"index": 0, "delta": {"content": word + " "}}]} for word in answer.split(" ")]
    stream = settled("chat", body, None, [*pieces, {"choices": [], "usage": usage}, b"[DONE]"])
    assert (stream.estimated, stream.usage.input) == (found.estimated, found.usage.input)


def test_other_operations():
    text = PROSE * 100
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    assert settled("embeddings", {"input": [text, text]}, {"data": [], "usage": usage}).usage.input == 30_000
    usage = {"input_tokens": 0, "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": 0}}
    output = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
    body = {"input": text, "max_output_tokens": 9000}
    found = settled("responses", body, {"output": output, "usage": usage})
    assert (found.estimated, found.usage.output) == (True, len(text))
    assert found.usage.input > len(text)
    usage = {"input_tokens": 1, "output_tokens": 1}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}], "max_tokens": 9000}
    found = settled("messages", body, {"content": [{"type": "text", "text": text}], "usage": usage})
    assert (found.estimated, found.usage.output, found.usage.input > len(text)) == (True, len(text), True)


def test_what_is_possible_is_believed():
    """Long tokens are runs; an echo is the prompt; a picture is no text."""
    for text in (" " * 9000, "-" * 9000, "=" * 4000 + "\n" * 5000, "\u00e9" * 3000):
        found = settled("chat", *chat(text, text, {"prompt_tokens": 80, "completion_tokens": 80}))
        assert (found.estimated, found.usage.total) == (False, 160)
    body, answer = {"prompt": PROSE * 99, "max_tokens": 5, "echo": True}, {"choices": [{"text": PROSE * 99 + "yes"}]}
    answer["usage"] = {"prompt_tokens": 1500, "completion_tokens": 1}
    assert not settled("completions", body, answer).estimated
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "Ab1+" * 9000}}
    body, answer = chat([image], "A cat", {"prompt_tokens": 85, "completion_tokens": 2})
    assert not settled("chat", body, answer).estimated


def test_the_lower_bound_is_below_real_tokenizers():
    assert (least_tokens(""), least_tokens("a"), least_tokens("a" * 10**6)) == (0, 1, 1)
    assert least_tokens(PROSE * 10) == -(-530 // 16)
    tiktoken = pytest.importorskip("tiktoken")
    try:
        encodings = [tiktoken.get_encoding(name) for name in ("cl100k_base", "o200k_base")]
    except Exception:  # the vocabularies are fetched
        pytest.skip("no vocabulary here")
    for encoding in encodings:
        for text in (PROSE * 50, " internationalization responsibilities" * 99, "    return self.value\n" * 80):
            assert least_tokens(text) <= len(encoding.encode(text))


def test_only_texts_are_judged():
    assert texts_of({"messages": [], "tools": [{"name": PROSE * 99}], "max_tokens": 5}) == []
    assert texts_of({"input": [1, 2, 3], "prompt": [[1, 2]]}) == []
    body = {"system": "a", "instructions": "b", "messages": [{"content": [{"type": "image", "text": "c"}]}]}
    assert texts_of(body) == ["a", "b"]
    assert [too_few(n, [PROSE * 8, "", PROSE * 8]) for n in (53, 54)] == [True, False]
    assert [too_few(n, ["a", "b", ""]) for n in (1, 2)] == [True, False]


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 100, "completion_tokens": 9, "prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40},
        {"completion_tokens": 9, "prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40},
        {"prompt_tokens": 100, "completion_tokens": 9, "cached_tokens": 60},
        {"prompt_tokens": 100, "completion_tokens": 9, "num_cached_tokens": 60},
        {"prompt_tokens": 100, "completion_tokens": 9, "cache_read_input_tokens": 60},
        {"prompt_tokens": 100, "completion_tokens": 9,
         "prompt_tokens_details": {"cached_tokens": 60},
         "cached_tokens": 1},
    ],
)  # fmt: skip
def test_cache_hits_under_other_names(usage):
    assert Usage.from_chat(usage) == Usage(input=100, output=9, cached=60)


def stream(*told):
    """One word and one usage a chunk: (prompt, completion), None = no usage; a text is a chunk without one."""
    found = []
    for one in told:
        usage = None if one is None or one == "" else {"prompt_tokens": one[0], "completion_tokens": one[1]}
        found.append({"choices": [{"index": 0, "delta": {"content": "w "}}], "usage": usage})
    return [*found, b"[DONE]"]


@pytest.mark.parametrize(
    ("told", "total"),
    [
        (stream(None, None, (12, 3)), 15),  # at the end
        (stream((12, 1), (12, 2), (12, 3)), 15),  # so far
        (stream((12, 1), (12, 1), (12, 1)), 15),  # what each added
        (stream((12, 1), (0, 1), (0, 1)), 15),
        (stream((12, 5), (12, 2), (12, 4)), 23),
        ([*stream((12, 1), (12, 1), (12, 1))[:-1],
          {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3}}, b"[DONE]"], 15),  # and the sum
        ([*stream((12, 1), (12, 2))[:-1], {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 2}},
          b"[DONE]"], 14),  # the last one repeated
    ],
)  # fmt: skip
def test_usages_of_a_stream_add_up_or_replace_each_other(told, total):
    body, _ = chat("Hi", "", {})
    found = settled("chat", body, None, told)
    assert (found.usage.total, found.estimated) == (total, False)


def test_a_stream_beyond_its_cap_without_usage_is_charged_what_was_seen():
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}
    chunks = [{"choices": [{"index": 0, "delta": {"content": "word "}}]} for _ in range(200)]
    found = settled("chat", body, None, [*chunks, b"[DONE]"])
    assert (found.estimated, found.usage.output) == (True, 1000)
    assert settled("chat", body, None, [*chunks[:9], b"[DONE]"]).usage.output == 10  # at most its cap, if it kept it
