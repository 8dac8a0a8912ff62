"""What is charged for text that was shown without a usage: by the tokenizer, never below what may have been billed."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest

from budgeteer.core.usage import Usage
from budgeteer.metering.call import Metering
from budgeteer.metering.estimate import Bounds
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.reading import Events, Reading
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import AROUND, ON_THE_WAY

WORDS = Bounds(tokens=lambda text: len(text.split()))
BODY = {"model": "m", "max_tokens": 500, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
TEXT = {"choices": [{"index": 0, "delta": {"content": "a longer word "}}]}
CALL = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1}'}}]}}]}


def read(operation, *events, body=BODY, bounds=WORDS):
    reading = Reading(operation, body, Metering(None), False, bounds=bounds)
    cut = Events(reading, True)
    for event in events:
        cut.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    return reading, cut.answer(200, False)


def test_a_cut_stream_counts_by_the_tokenizer_of_its_model_or_by_its_bytes_with_what_was_on_its_way():
    reading, answer = read("chat", *[TEXT] * 100)
    assert (answer.outcome, answer.seen, reading.likely) == (Outcome.CUT, 300 + AROUND + ON_THE_WAY, 300)
    assert read("chat", *[TEXT] * 100, bounds=Bounds())[1].seen == 1400 + ON_THE_WAY
    assert read("chat", *[TEXT] * 100, bounds=Bounds(tokens=WORDS.tokens, margin=Fraction(3, 2)))[1].seen == 486
    both = {"choices": [{"index": n, "delta": {"content": "word "}} for n in (0, 1)]}
    assert read("chat", both, both, body={**BODY, "n": 2})[1].seen == 4 + 2 * (AROUND + ON_THE_WAY)


def test_pieces_count_one_token_each_at_least_whatever_the_tokenizer_says():
    letters = [{"choices": [{"index": 0, "delta": {"content": letter}}]} for letter in "abcdefghij" * 10]
    reading, answer = read("chat", *letters)
    assert (reading.likely, answer.seen) == (100, 100 + ON_THE_WAY)


@pytest.mark.parametrize(
    ("operation", "events", "shown"),
    [
        ("chat", [TEXT, CALL], "a longer word " + '{"a": 1}'),
        ("responses", [{"type": "response.function_call_arguments.delta", "delta": '{"a": 1}'}], '{"a": 1}'),
        (
            "messages",
            [{"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta",
                                                                   "partial_json": '{"a": 1}'}}],
            '{"a": 1}',
        ),
    ],
)  # fmt: skip
def test_calls_of_tools_count_by_bytes_since_they_do_not_show_all_of_their_tokens(operation, events, shown):
    _, answer = read(operation, *events)
    assert (answer.seen, answer.shown) == (len(shown) + ON_THE_WAY, 0)


def test_a_model_that_bills_more_than_it_shows_is_charged_its_reservation_when_it_is_cut():
    metering = Metering(None)

    def charged(made):
        whole = {"choices": [{"message": {"content": "a longer word"}}], "model": "m",
                 "usage": {"prompt_tokens": 5, "completion_tokens": made}}  # fmt: skip
        reading = Reading("chat", {**BODY, "stream": False}, metering, False, bounds=WORDS)
        planned = metering.plan("openai", "chat", f"m{made}", Usage(input=10, output=500))
        metering.settlement(planned, reading.answer(200, json.dumps(whole).encode()))
        _, cut = read("chat", *[TEXT] * 10)
        return metering.settlement(planned, cut).usage.output

    assert charged(3 + AROUND) == 30 + AROUND + ON_THE_WAY
    assert charged(4 + AROUND) == 500  # fewer tokens than bytes, but more than were shown: some are hidden
    assert metering.settlement(metering.plan("openai", "chat", "m7", Usage(input=10, output=20)),
                               Answer(seen=66, outcome=Outcome.CUT)).usage.output == 20  # fmt: skip


FINAL = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
TOLD = {"usage": {"prompt_tokens": 5, "completion_tokens": 40, "total_tokens": 45}}
DELTA = {"type": "message_delta", "usage": {"input_tokens": 5, "output_tokens": 40}}


@pytest.mark.parametrize(
    ("operation", "events", "final"),
    [
        ("chat", [{**TEXT, **TOLD}], False),
        ("chat", [TEXT, {"choices": [], **TOLD}], True),
        ("chat", [TEXT, {**FINAL, **TOLD}], True),
        ("chat", [{**TEXT, **TOLD}, FINAL], False),  # what came between is not counted
        ("messages", [{**DELTA, "delta": {"stop_reason": None}}], False),
        ("messages", [{**DELTA, "delta": {"stop_reason": "end_turn"}}], True),
    ],
)
def test_a_usage_beside_text_is_a_lower_bound_of_a_cut_answer(operation, events, final):
    _, answer = read(operation, *events)
    assert answer.outcome == Outcome.CUT
    assert answer.usage.input == 5
    assert answer.usage.output == (40 if final else None)
    if not final:
        assert answer.least == 40
        assert answer.seen == 40 + ON_THE_WAY


def test_a_cost_so_far_is_not_that_of_a_cut_answer():
    so_far = {**TEXT, "usage": {**TOLD["usage"], "cost": 0.001}}
    for events, cost in (([so_far], None), ([so_far, {**so_far, "choices": []}], 10**9)):
        reading = Reading("chat", BODY, Metering(None), False, reads_cost=True)
        for event in events:
            reading.event(json.dumps(event).encode())
        assert reading.at_end().cost == cost


def test_the_usages_of_two_choices_are_final_once_both_have_ended():
    one, two = ({"choices": [{"index": n, "delta": {}, "finish_reason": "stop"}], **TOLD} for n in (0, 1))
    assert read("chat", one, body={**BODY, "n": 2})[1].usage.output is None
    assert read("chat", one, two, body={**BODY, "n": 2})[1].usage.output == 40
