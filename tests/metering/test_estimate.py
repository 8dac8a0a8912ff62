"""Bounds of requests by hand; the adaptive estimator against its definition, in both directions, and over drift."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgeteer import Usage
from budgeteer.core.errors import InvalidInput
from budgeteer.metering.estimate import Bounds, Estimator, State, Track, count_text, worst_case

NONE = Bounds(overhead=0)
HI = [{"role": "user", "content": "Hi"}]


def size(**prompt):
    return len(json.dumps(prompt, ensure_ascii=False).encode())


def test_the_bound_is_the_bytes_of_what_becomes_prompt():
    body = {"model": "m", "messages": HI, "tools": [{"name": "t"}], "max_tokens": 50, "stream": True, "user": "u"}
    assert worst_case(body, NONE) == Usage(input=size(messages=HI, tools=[{"name": "t"}]), output=50)
    wide = [{"role": "user", "content": "h\u00e9\u4e16"}]
    assert worst_case({"messages": wide, "max_tokens": 1}, NONE).input == size(messages=wide)
    assert worst_case({"messages": HI, "max_tokens": 1}, Bounds()).input == size(messages=HI) + 256
    assert worst_case({"messages": HI, "max_tokens": 1}, Bounds(margin=Fraction(3, 2), overhead=1)).input == (
        math.ceil(1.5 * size(messages=HI)) + 1
    )
    words = Bounds(tokens=lambda text: 7, overhead=0)
    assert worst_case({"messages": HI, "max_tokens": 1}, words).input == 3 * (7 + 3) + 2 * (7 + 2) + 3 * 2


@given(st.text())
def test_bytes_bound_any_text(text):
    assert count_text(text) >= len(text)
    assert worst_case({"prompt": text, "max_tokens": 1}, NONE).input >= count_text(text)


def test_a_real_tokenizer_stays_below_the_bytes():
    policy = pytest.importorskip("budgeteer.models.policy")
    path = Path(policy.REASONER) / "tokenizer.json"
    tokenizer = pytest.importorskip("tokenizers").Tokenizer.from_file(str(path))
    for text in ("State the final answer: 3 + 4 =", "h\u00e9llo \u4e16\u754c \U0001f600", " " * 40):
        assert len(tokenizer.encode(text).ids) <= count_text(text)


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({"max_tokens": 5, "n": 3}, 15),
        ({"max_completion_tokens": 5, "best_of": 4, "n": 2}, 20),
        ({"max_output_tokens": 9}, 9),
        ({"max_tokens": 0}, 1),  # some servers generate, and bill, one
        ({}, 77),
    ],
)
def test_output_is_the_cap_times_the_choices(body, output):
    assert worst_case({"messages": HI, **body}, Bounds(max_output=77)).output == output


def test_hidden_reasoning_comes_on_top():
    bounds = Bounds(hidden_reasoning=100)
    assert worst_case({"messages": HI, "max_tokens": 5, "n": 2}, bounds).output == 210


def test_images_count_by_the_piece_not_by_their_bytes():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}}
    body = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, image, image]}],
        "max_tokens": 1,
    }
    assert 2000 < worst_case(body, Bounds(image=1000, overhead=0)).input < 2200
    assert worst_case(body).input > 2 * 48_169
    responses = {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x" * 999}]}]}
    assert worst_case({**responses, "max_output_tokens": 1}, Bounds(image=1000, overhead=0)).input < 1100


@pytest.mark.parametrize(
    ("body", "pictures"),
    [
        ({"messages": [{"role": "user", "type": "image", "content": "a b " * 5000}]}, 1),
        ({"messages": [{"role": "user", "content": [{"type": "image", "text": "a b " * 5000}]}]}, 1),
        ({"messages": [{"role": "user", "content": [{"type": "image", "image_url": "a b " * 5000}]}]}, 1),
        ({"messages": HI, "tools": [{"name": "t", "parameters": {"type": "image", "source": "a b " * 5000}}]}, 0),
        ({"messages": [{"role": "assistant", "tool_calls": [{"type": "image", "source": "a b " * 5000}]}]}, 0),
        ({"messages": [{"role": "user", "content": [
            {"type": "tool_use", "input": {"content": [{"type": "image", "source": {"data": "a b " * 5000}}]}}]}]}, 0),
        ({"messages": [{"role": "user", "content": "a b " * 5000},  # the same text as address and as text
                       {"role": "user", "content": [{"type": "image_url", "image_url": "a b " * 5000}]}]}, 1),
    ],
)  # fmt: skip
def test_what_is_only_called_a_picture_is_text(body, pictures):
    found = worst_case({**body, "max_tokens": 1}, Bounds(image=1000, overhead=0)).input
    assert 20_000 + 1000 * pictures <= found < 20_400 + 1000 * pictures


def test_a_picture_without_its_type_is_a_picture():
    part = {"image_url": {"url": "data:image/png;base64," + "A" * 10**6}}
    body = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 1}
    assert 1000 < worst_case(body, Bounds(image=1000, overhead=0)).input < 1200


def test_pictures_in_the_results_of_tools():
    source = {"type": "base64", "media_type": "image/png", "data": "A" * 10**6}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": source}]}
    body = {"messages": [{"role": "user", "content": [result]}], "max_tokens": 1}
    assert 1000 < worst_case(body, Bounds(image=1000, overhead=0)).input < 1300
    output = [{"type": "input_image", "image_url": "data:image/png;base64," + "A" * 10**6}]
    body = {"input": [{"type": "function_call_output", "call_id": "c", "output": output}], "max_output_tokens": 1}
    assert 1000 < worst_case(body, Bounds(image=1000, overhead=0)).input < 1300


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({"prompt": "a"}, 5),
        ({"prompt": ["a", "b", "c"]}, 15),
        ({"prompt": [1, 2, 3]}, 5),
        ({"prompt": [[1, 2], [3]], "n": 3}, 30),
        ({"prompt": ["a", "b"], "n": 2, "best_of": 4}, 40),
        ({"prompt": []}, 5),
    ],
)
def test_every_prompt_of_a_list_is_continued(body, output):
    assert worst_case({**body, "max_tokens": 5}, NONE).output == output


def test_a_prediction_that_is_wrong_is_billed_as_output():
    prediction = {"type": "content", "content": "x" * 1000}
    found = worst_case({"messages": HI, "max_tokens": 5, "prediction": prediction}, NONE).output
    assert found == 5 + len(json.dumps(prediction))


@pytest.mark.parametrize(
    "hidden",
    [
        {"previous_response_id": "r"},
        {"conversation": "c"},
        {"prompt": {"id": "p"}},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA"}}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"messages": [{"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": "http://x/a"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "something_new", "id": "x"}]}]},
        {"messages": [{"role": "user", "content": {"video_url": {"url": "http://x/a"}}}]},
        {"messages": [{"role": "user", "CONTENT": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "assistant", "content": None, "audio": {"id": "audio_1"}}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "document"}]}]}]},
        {"messages": HI, "mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]},
        {"messages": HI, "tools": [{"type": "web_search"}]},
        {"messages": HI, "tools": [{"name": "x", "TYPE": "web_search"}]},
        {"messages": HI, "tools": [{"google_search": {}}]},
        {"messages": HI, "chat_template": "{% for i in range(9999) %}{{ messages }}{% endfor %}"},
        {"prompt": [{"prompt_string": "x", "multimodal_data": ["AA"]}]},
    ],
)
def test_input_that_is_not_shown_needs_a_bound(hidden):
    with pytest.raises(InvalidInput, match="give max_input"):
        worst_case({"max_tokens": 1, **hidden})
    assert worst_case({"max_tokens": 1, **hidden}, Bounds(max_input=9000, overhead=0)).input == 9000


@pytest.mark.parametrize(
    "bad",
    [{}, {"max_tokens": -1}, {"max_tokens": 1.5}, {"max_tokens": True}, {"max_tokens": "9"}, {"max_tokens": 10**20},
     {"max_tokens": 5, "n": -2}, {"max_tokens": float("nan")}],
)  # fmt: skip
def test_no_cap_or_a_wrong_one_is_refused(bad):
    with pytest.raises(InvalidInput):
        worst_case({"messages": HI, **bad})


def test_bad_settings():
    for bad in ({"margin": 0.5}, {"margin": 1.5}, {"margin": True}, {"overhead": -1}, {"image": 0.5}):
        with pytest.raises(InvalidInput):
            Bounds(**bad)
    for bad in ({"quantile": 0}, {"quantile": 1.0}, {"quantile": True}, {"window": 0}, {"rate": 1}, {"rate": -0.1}):
        with pytest.raises(InvalidInput):
            Estimator(**bad)
    with pytest.raises(InvalidInput, match="actual"):
        Estimator().observe(State(), "m", 5, -1)


def learn(estimator, actuals, bound=1000, state=None):
    state = state or State()
    for actual in actuals:
        state = estimator.observe(state, "m", bound, actual)
    return state


def test_it_reserves_the_rank_that_conformal_prediction_names():
    """19 ratios at 0.95: rank ceil(20 x 0.95) = 19, the largest; 18 are too few, so the bound."""
    estimator = Estimator(quantile=0.95, rate=0)
    assert estimator.reserve(learn(estimator, range(10, 190, 10)), "m", 1000) == 1000
    assert estimator.reserve(learn(estimator, range(10, 200, 10)), "m", 1000) == 190
    assert estimator.reserve(learn(estimator, range(10, 200, 10)), "m", 100) == 19
    assert estimator.reserve(learn(estimator, range(1, 100)), "m", 1000) == 95
    assert estimator.reserve(State(), "other", 1000) == 1000


def test_it_tightens_and_it_widens():
    estimator = Estimator(quantile=0.9, window=50)
    low = learn(estimator, [100] * 50)
    assert estimator.reserve(low, "m", 1000) == 100
    high = learn(estimator, [900] * 50, state=low)
    assert estimator.reserve(high, "m", 1000) == 900
    again = learn(estimator, [50] * 60, state=high)
    assert estimator.reserve(again, "m", 1000) == 50
    beyond = learn(estimator, [1300] * 60, state=low)  # a bound that does not hold is learnt to be one that does not
    assert estimator.reserve(beyond, "m", 1000) == 1300


@given(st.lists(st.tuples(st.integers(1, 10**13), st.integers(0, 10**13)), min_size=1, max_size=60))
def test_a_call_like_a_past_one_never_gets_a_token_less_by_rounding(pairs):
    estimator, state = Estimator(quantile=0.5, rate=0), State()
    for bound, actual in pairs:
        state = estimator.observe(state, "m", bound, actual)
    ratios = sorted(Fraction(actual, bound) for bound, actual in pairs)
    want = ratios[math.ceil((len(ratios) + 1) * 0.5) - 1]
    bound = pairs[0][0]
    assert abs(estimator.reserve(state, "m", bound) - want * bound) <= 1 + want * bound / 10**15
    for bound, actual in pairs:
        assert estimator.reserve(estimator.observe(State(), "m", bound, actual), "m", bound) == actual


@given(st.lists(st.integers(0, 5000), max_size=40), st.floats(0.01, 0.99))
def test_state_survives_json(actuals, quantile):
    estimator = Estimator(quantile=quantile)
    state = learn(estimator, actuals)
    back = State.from_json(json.loads(json.dumps(state.to_json())))
    assert back == state
    assert estimator.reserve(back, "m", 777) == estimator.reserve(state, "m", 777)


@pytest.mark.parametrize(
    "bad", [None, [], {"m": 1}, {"m": {"ratios": [1]}}, {"m": {"ratios": [-1.0], "level": 0.5, "calls": 1}},
            {"m": {"ratios": [float("nan")], "level": 0.5, "calls": 1}}, {"m": {"ratios": [], "level": 2, "calls": 0}},
            {"m": {"ratios": [0.5], "level": 0.5}}, {"m": {"ratios": [0.5], "level": 0.5, "calls": 0}}],
)  # fmt: skip
def test_a_state_that_is_none_is_refused(bad):
    with pytest.raises(InvalidInput, match="not the state"):
        State.from_json(bad)


def test_states_are_values():
    estimator = Estimator()
    state = learn(estimator, [5])
    estimator.observe(state, "m", 1000, 900)
    assert state.tracks["m"] == Track((0.005,), 0.95, 1)


@pytest.mark.parametrize("drift", [1.0, 5.0, 0.2])
@pytest.mark.parametrize("quantile", [0.8, 0.95])
def test_misses_come_at_the_chosen_rate_however_the_traffic_drifts(quantile, drift):
    """The guarantee of adaptive conformal inference: |miss rate - (1 - q)| <= (1 + rate) / (rate n), here 0.034."""
    rng = np.random.default_rng(0)
    n, estimator, state, missed = 3000, Estimator(quantile=quantile), State(), 0
    sizes = np.exp(rng.normal(4.5, 0.8, n)) * drift ** (np.arange(n) / n)
    for actual in sizes.astype(int).tolist():
        missed += actual > estimator.reserve(state, "m", 10_000)
        state = estimator.observe(state, "m", 10_000, actual)
    assert abs(missed / n - (1 - quantile)) <= (1 + estimator.rate) / (estimator.rate * n)


def test_the_benchmark_runs_and_nothing_overshoots_its_declared_bound(tmp_path):
    script, out = Path(__file__).parents[2] / "benchmarks" / "estimate.py", tmp_path / "estimate.json"
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--out", str(out)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["quick"] is True
    assert len(found["traces"]) == 3
    for trace in found["traces"]:
        for row in trace["reservation"]:
            assert 1 <= row["reserved_over_actual"] < row["bound_over_actual"]
        for row in trace["work"]:
            assert row["overshoots_beyond_the_declared_bound"] == 0
            assert row["overshoot_share_of_budget"]["omniscient"] == row["overshoot_share_of_budget"]["bound"] == 0
            shares = row["share_of_omniscient_work"]
            assert shares["bound"]["mean"] < shares["quantile"]["mean"]


@given(st.lists(st.integers(0, 90), max_size=9), st.lists(st.integers(0, 90), max_size=9),
       st.lists(st.integers(0, 90), max_size=9))  # fmt: skip
def test_merged_states_have_learnt_from_the_calls_of_both(before, mine, theirs):
    estimator = Estimator(window=50)
    base = learn(estimator, before)

    def on(actuals):
        state = base
        for actual in actuals:
            state = estimator.observe(state, "m", 1000, actual)
        return state

    assert estimator.merge(base, on(mine), base) == on(mine)
    assert estimator.merge(base, base, on(theirs)) == on(theirs)
    merged = estimator.merge(base, on(mine), on(theirs)).tracks.get("m", Track())
    assert merged.calls == len(before) + len(mine) + len(theirs)
    assert sorted(merged.ratios) == sorted(actual / 1000 for actual in before + mine + theirs)


def test_of_two_states_with_more_calls_than_the_window_each_keeps_its_share():
    estimator, base = Estimator(window=10, rate=0), State()
    mine = theirs = base
    for n in range(30):
        mine = estimator.observe(mine, "m", 100, 1)
        theirs = estimator.observe(theirs, "m", 100, 2) if n < 10 else theirs
    track = estimator.merge(base, mine, theirs).tracks["m"]
    assert (track.ratios.count(0.01), track.ratios.count(0.02), track.calls) == (5, 5, 40)
