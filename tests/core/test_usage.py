"""Usage: validation, and what each provider's usage object means, on objects written by hand from documentation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgeteer import Usage
from budgeteer.core.errors import InvalidInput

TOKENS = st.integers(0, 10**9)


@pytest.mark.parametrize("bad", [-1, 1.0, float("nan"), True, "7", 10**16, np.float64(3)])
def test_what_is_not_a_count_is_refused_and_shown(bad):
    with pytest.raises(InvalidInput, match=r"Usage\.output is"):
        Usage(input=1, output=bad)


def test_parts_are_inside_their_wholes():
    Usage(input=5, cached=2, written=3, written_long=3, audio_input=5)
    for bad in (
        {"input": 5, "cached": 6},
        {"input": 5, "cached": 3, "written": 3},
        {"input": 9, "written": 3, "written_long": 4},
        {"output": 5, "reasoning": 6},
        {"output": 5, "audio_output": 6},
    ):
        with pytest.raises(InvalidInput):
            Usage(**bad)
    assert Usage(input=np.int64(5)) == Usage(input=5)
    assert type(Usage(input=np.int64(5)).input) is int


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=5))
def test_sums_add_what_is_known_and_forget_the_rest(pairs):
    total = sum(
        (Usage(input=i, output=o, cached=0) for i, o in pairs[1:]), Usage(input=pairs[0][0], output=pairs[0][1])
    )
    assert total == Usage(input=sum(i for i, _ in pairs), output=sum(o for _, o in pairs), cached=None)


def test_openai_chat():
    usage = {
        "prompt_tokens": 2006,
        "completion_tokens": 300,
        "total_tokens": 2306,
        "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 192, "audio_tokens": 0, "rejected_prediction_tokens": 10},
    }
    want = Usage(input=2006, output=300, cached=1920, reasoning=192, audio_input=0, audio_output=0)
    assert Usage.from_chat(usage) == want
    assert Usage.from_chat(SimpleNamespace(prompt_tokens=7, completion_tokens=3)) == Usage(input=7, output=3)
    assert Usage.from_chat(None) == Usage()


def test_openai_chat_of_servers_that_count_parts_beside_their_wholes():
    beside = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}
    reasoning = {"completion_tokens_details": {"reasoning_tokens": 100}}
    assert Usage.from_chat(beside | reasoning) == Usage(input=10, output=105, reasoning=100)
    cached = {"prompt_tokens_details": {"cached_tokens": 100}}
    assert Usage.from_chat(beside | cached) == Usage(input=110, output=5, cached=100)
    del beside["total_tokens"]  # then only what cannot be inside is added
    assert Usage.from_chat(beside | reasoning) == Usage(input=10, output=105, reasoning=100)
    assert Usage.from_chat(beside | cached) == Usage(input=110, output=5, cached=100)
    inside = {"completion_tokens_details": {"reasoning_tokens": 4}}
    assert Usage.from_chat(beside | inside) == Usage(input=10, output=5, reasoning=4)


def test_openai_responses():
    usage = {
        "input_tokens": 81,
        "input_tokens_details": {
            "cached_tokens": 20,
            "cache_write_tokens": 61,
            "cache_write_tokens_details": {"ttl_12h_tokens": 60, "ttl_30m_tokens": 1},
        },
        "output_tokens": 1035,
        "output_tokens_details": {"reasoning_tokens": 832},
        "total_tokens": 1116,
    }
    want = Usage(input=81, output=1035, cached=20, written=61, written_long=60, reasoning=832)
    assert Usage.from_responses(usage) == want
    usage["input_tokens_details"]["cache_write_tokens"] = 81  # "unadjusted": counts what was read, too
    assert Usage.from_responses(usage).written == 61


def test_anthropic_excludes_the_cache_from_input():
    usage = {
        "input_tokens": 21,
        "cache_creation_input_tokens": 188_086,
        "cache_read_input_tokens": 1000,
        "cache_creation": {"ephemeral_5m_input_tokens": 188_000, "ephemeral_1h_input_tokens": 86},
        "output_tokens": 393,
    }
    want = Usage(input=189_107, output=393, cached=1000, written=188_086, written_long=86)
    assert Usage.from_anthropic(usage) == want


def test_anthropic_streams_tell_late_and_cumulatively():
    start = {"input_tokens": 0, "output_tokens": 1, "cache_read_input_tokens": None}
    delta = {"output_tokens": 15}
    last = {"input_tokens": 472, "output_tokens": 89, "cache_read_input_tokens": 8}
    got = Usage.from_anthropic(start, delta, last)
    assert got == Usage(input=480, output=89, cached=8, written=0, written_long=0)
    assert Usage.from_anthropic() == Usage()


def test_gemini_adds_thoughts_and_tool_prompts():
    metadata = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 40,
        "toolUsePromptTokenCount": 7,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 300,
        "totalTokenCount": 427,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 90}, {"modality": "AUDIO", "tokenCount": 10}],
    }
    assert Usage.from_gemini(metadata) == Usage(input=107, output=320, cached=40, reasoning=300, audio_input=10)
    stopped = {"promptTokenCount": 100, "thoughtsTokenCount": 300, "totalTokenCount": 400}  # a count of 0 is left out
    assert Usage.from_gemini(stopped) == Usage(input=100, output=300, cached=0, reasoning=300)
    snake = SimpleNamespace(prompt_token_count=5, candidates_token_count=2, thoughts_token_count=None)
    assert Usage.from_gemini(snake) == Usage(input=5, output=2, cached=0, reasoning=0)
    assert Usage.from_gemini(None) == Usage()


def test_llama_cpp_counts_one_choice_only():
    body = {"usage": {"prompt_tokens": 9, "completion_tokens": 10, "total_tokens": 19}, "choices": [{}]}
    assert Usage.from_llama_cpp(body) == Usage(input=9, output=10)
    body["choices"] = [{}, {}, {}]
    assert Usage.from_llama_cpp(body) == Usage(input=9)


@pytest.mark.parametrize("bad", [{"prompt_tokens": -1}, {"prompt_tokens": "9"}, {"completion_tokens": 1.5}])
def test_a_wrong_count_of_a_provider_is_an_error(bad):
    with pytest.raises(InvalidInput):
        Usage.from_chat(bad)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # what only the total counts was generated: Gemini's thoughts through its OpenAI endpoint
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 500}, (9, 491)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "reasoning": 3, "total_tokens": 500}, (9, 491)),
        # reasoning beside (xAI), the cache beside, both beside
        ({"prompt_tokens": 9, "completion_tokens": 5, "reasoning": 486, "total_tokens": 500}, (9, 491)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "cached": 486, "total_tokens": 500}, (495, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "cached": 400, "reasoning": 86, "total_tokens": 500}, (409, 91)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "cached": 50, "total_tokens": 500}, (59, 441)),
        # inside, as OpenAI, DeepSeek and Mistral count them: nothing is counted twice
        ({"prompt_tokens": 90, "completion_tokens": 50, "cached": 50, "reasoning": 40, "total_tokens": 140}, (90, 50)),
        ({"prompt_tokens": 90, "completion_tokens": 50, "prompt_tokens_details": {"audio_tokens": 80},
          "completion_tokens_details": {"audio_tokens": 30}, "total_tokens": 140}, (90, 50)),
        ({"prompt_tokens": 90, "completion_tokens": 50, "total_tokens": 100}, (90, 50)),
        # one of the three is missing
        ({"prompt_tokens": 9, "total_tokens": 500}, (9, 491)),
        ({"completion_tokens": 5, "total_tokens": 500}, (495, 5)),
        ({"prompt_tokens": 9, "total_tokens": 9}, (9, None)),
        ({"total_tokens": 500}, (None, 500)),
    ],
)  # fmt: skip
def test_tokens_that_only_the_total_counts(usage, expected):
    usage = dict(usage)
    if (cached := usage.pop("cached", None)) is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if (reasoning := usage.pop("reasoning", None)) is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    found = Usage.from_chat(usage)
    assert (found.input, found.output, found.cached, found.reasoning) == (*expected, cached, reasoning)
    named = {name.replace("prompt", "input").replace("completion", "output"): n for name, n in usage.items()}
    assert Usage.from_responses(named) == found


def test_geminis_total_counts_what_its_parts_do_not():
    found = Usage.from_gemini({"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 500})
    assert (found.input, found.output) == (9, 491)
