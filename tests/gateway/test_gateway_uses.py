"""Bodies and files of anybody at the routes that make no text: bounded or refused; lengths of sounds."""

from __future__ import annotations

import io
import json
import struct
import wave
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest

for needed in ("hypothesis", "orjson", "aiohttp"):
    pytest.importorskip(needed)
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from budgeteer import Usage  # noqa: E402
from budgeteer.core.errors import InvalidInput, UnknownPrice  # noqa: E402
from budgeteer.gateway.ask import Ask  # noqa: E402
from budgeteer.gateway.forms import fields_of, parse_form, write_form  # noqa: E402
from budgeteer.gateway.prepare import prepare  # noqa: E402
from budgeteer.gateway.refusal import Refused  # noqa: E402
from budgeteer.gateway.routes import ROUTES  # noqa: E402
from budgeteer.metering.call import Metering  # noqa: E402
from budgeteer.metering.outcome import Outcome  # noqa: E402
from budgeteer.metering.reading import CAPS  # noqa: E402
from budgeteer.metering.sounds import seconds_of  # noqa: E402
from budgeteer.prices import Price, Rates, of  # noqa: E402
from helpers.requests import KEY, MODEL  # noqa: E402

ONE = Rates(input=Decimal(1), output=Decimal(1))
FEES = dict.fromkeys(("search_unit", "image", "character", "second"), Decimal(1))
METERING = Metering(None, ("all", "money"), of({MODEL.price: Price(ONE, fees=FEES)}))
OTHERS = sorted(route for route, about in ROUTES.items() if about.operation not in CAPS and not about.form)
small = st.none() | st.booleans() | st.integers(-5, 200) | st.floats() | st.text(max_size=5)
anything = st.recursive(
    small, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
FIELDS = (
    "query",
    "documents",
    "input",
    "prompt",
    "n",
    "size",
    "quality",
    "voice",
    "messages",
    "stream",
    "partial_images",
)


@settings(max_examples=400)
@given(
    st.sampled_from(OTHERS), st.fixed_dictionaries({"model": st.just("m")}, optional=dict.fromkeys(FIELDS, anything))
)
def test_any_body_is_bounded_or_refused(route, body):
    try:
        found = prepare(Ask(route, json.dumps(body).encode(), KEY), MODEL, METERING, "openai")
    except (Refused, InvalidInput, UnknownPrice):
        return
    assert json.loads(found.content)["model"] == "m-upstream"
    if route == "audio/speech":
        assert dict(found.planned.worst.counts)["character"] >= len(body["input"])
    if route == "images/generations":
        assert dict(found.planned.worst.counts)["image"] == (body.get("n") or 1)


@settings(max_examples=400)
@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda inner: b"--b\r\n" + inner + b"\r\n--b--\r\n"))
def test_any_bytes_are_a_form_or_refused(raw):
    try:
        parts = parse_form(raw, "multipart/form-data; boundary=b")
        fields_of(parts)
    except Refused:
        return
    assert parse_form(*write_form(parts, {})) == parts


BEGINNINGS = (
    b"RIFF\0\0\0\0WAVEfmt ",
    b"fLaC",
    b"OggS",
    b"\x1aE\xdf\xa3",
    b"\0\0\0\x18ftyp",
    b"ID3",
    b"\xff\xfb\x90\x00",
)


@settings(max_examples=600)
@given(st.sampled_from(BEGINNINGS), st.binary(max_size=200))
def test_any_bytes_have_a_length_or_none(begin, rest):
    seconds = seconds_of(begin + rest)
    assert seconds is None or seconds >= 0


def box(name, content):
    return struct.pack(">I4s", 8 + len(content), name) + content


def wav():
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((2, 2, 44_100, 0, "NONE", ""))
        out.writeframes(bytes(4 * 44_100 * 3))
    return file.getvalue()


def page(serial, position, *packets):
    body = b"".join(packets)
    return (
        b"OggS\0\0" + position.to_bytes(8, "little") + serial + bytes(8) + bytes([len(packets)])
        + bytes(len(packet) for packet in packets) + body
    )  # fmt: skip


MVHD = bytes(12) + struct.pack(">II", 600, 600 * 90)
MDHD = bytes(12) + struct.pack(">II", 8000, 8000 * 91)
SOUNDS = {
    "wav": (wav(), Fraction(44 + 4 * 44_100 * 3, 4 * 44_100)),
    "mp3": (b"ID3\x04\0\0\0\0\0\x05hello" + (b"\xff\xfb\x90\x00" + bytes(413)) * 100, Fraction(100 * 1152, 44_100)),
    "slow mp3": ((b"\xff\xe3\x18\x00" + bytes(68)) * 10, Fraction(10 * 576, 8000)),
    "flac": (b"fLaC\0\0\0\x22" + bytes(10) + (16_000 << 44 | 15 << 36 | 16_000 * 7).to_bytes(8, "big") + bytes(16), 7),
    "opus": (page(b"abcd", 0, b"OpusHead" + bytes(11)) + page(b"abcd", 48_000 * 5, bytes(20)), 5),
    "vorbis": (page(b"abcd", 0, b"\x01vorbis\0\0\0\0\x01\x40\x1f\0\0") + page(b"abcd", 8000 * 6, b"x"), 6),
    "m4a": (
        box(b"ftyp", b"M4A ") + box(b"moov", box(b"mvhd", MVHD) + box(b"trak", box(b"mdia", box(b"mdhd", MDHD)))), 91,
    ),
    "webm": (b"\x1aE\xdf\xa3" + b"\x2a\xd7\xb1\x83\x0f\x42\x40" + b"\x44\x89\x84" + struct.pack(">f", 4000.0), 4),
    "webm of a browser": (b"\x1aE\xdf\xa3" + bytes(996), 4),
    "m4a in fragments": (box(b"ftyp", b"M4A ") + box(b"moof", b"") + box(b"moov", box(b"mvhd", MVHD)), None),
    "compressed wav": (b"RIFF....WAVEfmt " + struct.pack("<IHHIIHH", 16, 2, 1, 8000, 4000, 1, 4), None),
    "text": (b"no sound at all", None),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUNDS)
def test_the_length_of_a_sound(name):
    data, seconds = SOUNDS[name]
    assert seconds_of(data) == seconds


def test_a_header_that_tells_too_little_gains_little():
    data, _ = SOUNDS["m4a"]
    assert seconds_of(data + box(b"mdat", bytes(64_000 * 200))) > 200
    short = wav().replace(struct.pack("<I", 4 * 44_100 * 3), struct.pack("<I", 4))
    assert seconds_of(short) == seconds_of(wav())


@pytest.mark.parametrize(
    ("content", "outcome", "charged"),
    [
        (b'{"text": "hi", "usage": {"type": "duration", "seconds": 12.2}}', Outcome.OK, 13),
        (b'{"text": "hi"}', Outcome.OK, 20),
        (b'{"text": "hi", "usage": {"seconds": -4}}', Outcome.OK, 20),
        (b"1\n00:00 --> 00:01\nhi\n", Outcome.OK, 20),
        (b'{"error": {"type": "overloaded_error", "message": "no"}}', Outcome.REJECTED, 0),
        (b'{"error": {"message": "no"}}', Outcome.UNKNOWN, 20),
    ],
)
def test_an_answer_is_charged_as_it_tells_or_as_reserved(content, outcome, charged):
    free = Rates(input=Decimal(0), output=Decimal(0))
    metering = Metering(
        None, ("money",), of({MODEL.price: Price(free, fees={"second": Decimal("0.000001")}, by_token=False)})
    )
    raw = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--b\r\n'
    raw += (
        b'content-disposition: form-data; name="file"; filename="a.webm"\r\n\r\n\x1aE\xdf\xa3'
        + bytes(4996)
        + b"\r\n--b--"
    )
    ask = Ask("audio/transcriptions", raw, KEY, content_type="multipart/form-data; boundary=b")
    prepared = prepare(ask, MODEL, metering, "openai")
    answer = prepared.reading.answer(200, content)
    assert answer.outcome == outcome
    assert metering.settlement(prepared.planned, answer).amounts == {"money": charged * 10**6}


def test_with_learnt_limits_the_worst_case_is_reserved_all_the_same():
    from budgeteer.gateway.learnt import RESERVES

    metering = replace(METERING, estimator=RESERVES)
    body = b'{"model": "m", "input": "hello", "voice": "a"}'
    for _ in range(30):
        prepared = prepare(Ask("audio/speech", body, KEY), MODEL, metering, "openai")
        metering.settlement(prepared.planned, prepared.reading.answer(200, b"ID3"))
    assert prepared.planned.amounts["money"] >= 5 * 10**12
    assert prepared.likely is not None
    assert prepared.planned.worst == Usage(input=5 + MODEL.bounds.overhead, output=0, counts={"character": 5})


def test_without_money_tokens_are_counted_and_what_has_none_is_refused():
    metering = Metering(None)
    body = b'{"model": "m", "query": "q", "documents": ["abc"]}'
    planned = prepare(Ask("rerank", body, KEY), MODEL, metering, "openai").planned
    assert planned.amounts == {"all": 3 + 1 + 16 + MODEL.bounds.overhead}
    for route, body in (
        ("audio/speech", b'{"model": "m", "input": "hello", "voice": "a"}'),
        ("images/generations", b'{"model": "m", "prompt": "a cat"}'),
    ):
        with pytest.raises(Refused, match=r"ledger|by the piece"):
            prepare(Ask(route, body, KEY), MODEL, metering, "openai")
