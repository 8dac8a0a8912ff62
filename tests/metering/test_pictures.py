"""Pictures: their size is read from any data that shows it, and their tokens by their provider's published rule."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgeteer.metering.estimate import Bounds, worst_case
from budgeteer.metering.pictures import Picture, size_of

UNKNOWN = 48_169


def png(width, height, *more):
    """A PNG's first bytes, with further chunks before its data."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *more, (b"IDAT", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def jpeg(width, height, before=()):
    """A JPEG's first bytes: other segments, then the start of its frame, then the start of its data."""
    segments = [*before, (0xC2, struct.pack(">BHHB", 8, height, width, 3))]
    body = b"".join(b"\xff" + bytes([kind]) + struct.pack(">H", len(data) + 2) + data for kind, data in segments)
    return b"\xff\xd8" + body + b"\xff\xda"


def gif(width, height, frame=None):
    """A GIF's first bytes: colours, an extension, and the first frame at (1, 2)."""
    across, down = frame or (width - 1, height - 2)
    return (
        b"GIF89a" + struct.pack("<HHBBB", width, height, 0x81, 0, 0) + bytes(12) + b"\x21\xf9\x04\0\0\0\0\0"
        + b"\x2c" + struct.pack("<HHHH", 1, 2, across, down)
    )  # fmt: skip


WEBP = {
    "VP8X": b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (639).to_bytes(3, "little") + (479).to_bytes(3, "little"),
    "VP8": b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 640, 480),
    "VP8L": b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + (639 | 479 << 14).to_bytes(4, "little"),
}


def url(raw, kind="image/png"):
    return f"data:{kind};base64," + base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        (png(640, 480), (640, 480)),
        (png(1, 1, (b"IHDR", struct.pack(">IIBBBBB", 640, 480, 8, 2, 0, 0, 0))), (640, 480)),  # some take the last
        (png(0, 480), (0, 0)),
        (png(2**31, 9), (0, 0)),
        (jpeg(640, 480), (640, 480)),
        (jpeg(640, 480, [(0xE1, b"\xff\xc0\x00\x11\x08" + bytes(60_000))] * 8), (640, 480)),  # a preview in EXIF
        (jpeg(1, 1, [(0xC0, struct.pack(">BHHB", 8, 480, 640, 3))]), (640, 480)),
        (jpeg(640, 480, [(0xC0, struct.pack(">BHHB", 8, 1, 1, 3))]), (640, 480)),
        (gif(640, 480), (640, 480)),
        (gif(10, 10, (639, 478)), (640, 480)),
        *((raw, (640, 480)) for raw in WEBP.values()),
        (b"BM" + bytes(60), (0, 0)),
        (b"\xff\xd8" + bytes(90), (0, 0)),
        (b"\x89PNG\r\n\x1a\n" + bytes(4), (0, 0)),
        (b"RIFF\0\0\0\0WEBP????", (0, 0)),
        (b"GIF89a", (0, 0)),
        (b"", (0, 0)),
    ],
)
def test_the_size_is_read_from_the_first_bytes(raw, size):
    assert size_of(url(raw, "image/x-anything")) == size_of(base64.b64encode(raw).decode()) == size
    assert size_of(url(raw).replace(";base64", "")) == (0, 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_sizes_of_pictures_that_a_library_writes(kind):
    images = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    images.new("RGB", (313, 57), "red").save(file, kind, **({"progressive": True} if kind == "JPEG" else {}))
    assert size_of(url(file.getvalue())) == (313, 57)


@given(
    st.sampled_from([b"", *map(bytes, WEBP.values()), png(9, 9)[:16], jpeg(9, 9)[:8], gif(9, 9)[:14]]), st.binary(),
    st.integers(0, 40),
)  # fmt: skip
def test_any_bytes_have_a_size_or_none(begin, rest, keep):
    assert all(0 <= side <= 30_000 for side in size_of(url(begin[:keep] + rest)))


@pytest.mark.parametrize("text", ["https://example.com/x.png", "data:image/png;base64", "x" * 999, "data:,abc"])
def test_an_address_shows_no_size(text):
    assert size_of(text) == (0, 0)


@pytest.mark.parametrize(
    ("model", "width", "height", "billed", "most"),
    [
        # billed: what was measured or is documented; most: what the bound may come to
        ("claude-haiku-4-5", 256, 256, 100, 100),
        ("claude-sonnet-4-5", 1092, 1092, 1590, 1590),
        ("claude-opus-5-5", 1920, 1080, 2691, 2765),
        ("anthropic/claude-opus-5.5", 4032, 3024, 3928, 5000),
        ("us.anthropic.claude-sonnet-4-5", 200, 200, 54, 64),
        ("gpt-4o", 1024, 1024, 765, 765),
        ("gpt-4o-2024-08-06", 2048, 4096, 1105, 1445),
        ("gpt-4o-mini", 8000, 8000, 2833 + 4 * 5667, 48_169),
        ("gpt-4.1-mini", 1024, 1024, 1659, 1762),
        ("gpt-4.1-nano", 1024, 1024, 2520, 2520),
        ("gpt-6-astra", 4032, 3024, 14_364, 20_600),
        ("openai/gpt-5-mini", 1280, 720, 1104, 1583),
    ],
)
def test_tokens_of_a_size_are_no_fewer_than_billed_and_not_many_more(model, width, height, billed, most):
    for across, down in ((width, height), (height, width)):
        assert billed <= Picture(across, down).tokens(model, UNKNOWN) <= most


def test_what_no_rule_is_known_of_keeps_the_declared_bound():
    assert Picture(640, 480).tokens("qwen3-vl", 777) == Picture().tokens("gpt-4o", 777) == 777


def test_a_request_counts_each_picture_by_its_size():
    def body(model, *sources):
        parts = [{"type": "image", "source": source} for source in sources]
        return {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": 1}

    data = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png(1092, 1092)).decode()}
    address = {"type": "url", "url": "https://example.com/" + "x" * 80}
    bounds = Bounds(overhead=0)
    found = worst_case(body("claude-sonnet-4-5", data), bounds).input
    assert 1590 < found < 1590 + 300
    assert worst_case(body("claude-sonnet-4-5", data, address), bounds).input > found + UNKNOWN
    assert worst_case(body("some-model", data), bounds).input > UNKNOWN
    assert worst_case(body("claude-sonnet-4-5", data), Bounds(measured=False)).input > UNKNOWN


TINY, LARGE = (base64.b64encode(png(side, side)).decode() for side in (1, 8000))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "source": {"type": "base64", "url": f"data:image/png;base64,{TINY}", "data": LARGE}},
        {"type": "image", "source": {"type": "file", "file_id": "file-1", "data": TINY}},
        {"type": "image", "source": {"type": "base64", "data": TINY}, "image_url": f"data:image/png;base64,{LARGE}"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{TINY}", "file_id": "file-1"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{TINY}"}, "source": {"data": LARGE}},
    ],
)
def test_a_part_with_several_pictures_counts_as_none_that_is_known(part):
    for inside in ([part], [{"type": "tool_result", "tool_use_id": "t", "content": [part]}]):
        body = {"model": "claude-sonnet-4-5", "max_tokens": 1, "messages": [{"role": "user", "content": inside}]}
        assert worst_case(body).input > UNKNOWN
