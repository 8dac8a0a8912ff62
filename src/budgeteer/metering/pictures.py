"""The size of a picture, from the first bytes of its data, and the tokens that its provider counts for that size.

The rules are published: platform.claude.com/docs (vision), developers.openai.com (images and vision). Where the
documentation and measured bills differ, the larger number of tokens counts.
"""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass
from fractions import Fraction

_HEAD = 700_000
"""Characters of base64 that are looked at: the size of a JPEG may stand after half a megabyte of other segments."""
_MOST = 30_000
"""Most pixels of a side; of a picture that says more the size counts as unknown."""
_CLAUDE = 28
"""Side, in pixels, of the square that is a token of Claude's; for its older models 750 pixels are a token."""
_CLAUDE_MOST = 5_000
"""Tokens of the largest picture that Claude reads (documented: 4,784); larger ones are scaled down to it."""
_PATCH = 32
"""Side, in pixels, of a patch of OpenAI's."""
_PATCHES = (("nano", Fraction("2.46")), ("", Fraction("1.72")))
"""Tokens a patch of OpenAI's models with this in their names, at the most of the published multipliers."""
_TILES = (
    ("gpt-4o-mini", 2833, 5667),
    ("gpt-4o", 85, 170),
    ("chatgpt-4o", 85, 170),
    ("gpt-4-turbo", 85, 170),
    ("gpt-4.5", 85, 170),
    ("computer-use-preview", 85, 170),
)
"""Models of OpenAI's that count tiles of 512 pixels: (beginning of the name, tokens of a picture, tokens a tile)."""
_OPENAI = ("gpt-", "chatgpt-", "o1", "o3", "o4", "computer-use-")
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Markers of a JPEG that its size follows."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: its width and height in pixels, 0 where its data does not show them."""

    width: int = 0
    height: int = 0

    def tokens(self, model: str, unknown: int) -> int:
        """Tokens of it at most, by the rule of the model's provider; ``unknown`` where size or rule is not known.

        >>> Picture(1092, 1092).tokens("claude-sonnet-4-5", 48_169), Picture().tokens("claude-sonnet-4-5", 48_169)
        (1590, 48169)
        """
        name = model.lower().rpartition("/")[2]
        if not self.width or not self.height:
            return unknown
        if "claude" in name:
            patches = _cells(self.width, _CLAUDE) * _cells(self.height, _CLAUDE)
            return min(_CLAUDE_MOST, max(patches, -(-self.width * self.height // 750)))
        if not name.startswith(_OPENAI):
            return unknown
        for begin, base, tile in _TILES:
            if name.startswith(begin):
                return base + tile * _tiles(self.width, self.height)
        rate = next(rate for part, rate in _PATCHES if part in name)
        patches = _cells(self.width, _PATCH) * _cells(self.height, _PATCH)
        return max(int(patches * rate) + 1, 85 + 170 * _tiles(self.width, self.height))


def _cells(pixels: int, side: int) -> int:
    return -(-pixels // side)


def _tiles(width: int, height: int) -> int:
    """Tiles of 512 pixels: the picture is fitted into 2,048 pixels, then its shorter side to 768.

    The documentation does not say whether small pictures are enlarged to that, so the larger number of tiles counts. A
    pixel is added for rounding.
    """
    short, long = sorted((width, height))
    fit = min(Fraction(1), Fraction(2048, long))
    to = min(Fraction(768, short), Fraction(2048, long))
    return max(_cells(int(short * scale) + 1, 512) * _cells(int(long * scale) + 1, 512) for scale in (min(fit, to), to))


def size_of(data: str) -> tuple[int, int]:
    """Width and height of a picture as base64 or a ``data:`` URL; (0, 0) if it is an address or shows no size.

    The format is told by its bytes, whatever the media type says, as decoders do. PNG, JPEG, GIF, WebP.
    """
    if data[:5].lower() == "data:":
        head, comma, data = data.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            return 0, 0
    try:
        text = "".join(data[:_HEAD].split())
        raw = base64.b64decode(text[: len(text) // 4 * 4], validate=True)
        size = _size(raw)
    except (binascii.Error, ValueError, struct.error, IndexError):
        return 0, 0
    return size if all(0 < side <= _MOST for side in size) else (0, 0)


def _size(raw: bytes) -> tuple[int, int]:
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(raw)
    if raw.startswith((b"GIF87a", b"GIF89a")):
        return _gif(raw)
    if raw.startswith(b"\xff\xd8"):
        return _jpeg(raw)
    if raw.startswith(b"RIFF") and raw[8:12] == b"WEBP":
        return _webp(raw)
    return 0, 0


def _png(raw: bytes) -> tuple[int, int]:
    """The largest of the sizes before the first data: some decoders take the last of several."""
    at, most = 8, (0, 0)
    while raw[at + 4 : at + 8] != b"IDAT":
        length = struct.unpack(">I", raw[at : at + 4])[0]
        if raw[at + 4 : at + 8] == b"IHDR":
            most = _larger(most, struct.unpack(">II", raw[at + 8 : at + 16]))
        at += 12 + length
    return most


def _larger(size: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, int]:
    """The larger of the widths and of the heights."""
    return max(size[0], other[0]), max(size[1], other[1])


def _gif(raw: bytes) -> tuple[int, int]:
    """The larger of the screen and the first picture on it, which decoders let reach beyond."""
    width, height, flags = struct.unpack("<HHB", raw[6:11])
    at = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    while raw[at] == 0x21:  # extensions before it
        at += 2
        while raw[at]:
            at += raw[at] + 1
        at += 1
    if raw[at] != 0x2C:
        return 0, 0
    left, top, across, down = struct.unpack("<HHHH", raw[at + 1 : at + 9])
    return max(width, left + across), max(height, top + down)


def _jpeg(raw: bytes) -> tuple[int, int]:
    """The largest of the sizes before the first data, as of a PNG."""
    at, most = 2, (0, 0)
    while raw[at : at + 2] != b"\xff\xda":
        if raw[at] != 0xFF:
            return 0, 0
        marker = raw[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:
            at += 2
        else:
            if marker in _START_OF_FRAME:
                height, width = struct.unpack(">HH", raw[at + 5 : at + 9])
                most = _larger(most, (width, height))
            at += 2 + struct.unpack(">H", raw[at + 2 : at + 4])[0]
    return most


def _webp(raw: bytes) -> tuple[int, int]:
    kind = raw[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(raw[24:27], "little"), 1 + int.from_bytes(raw[27:30], "little")
    if kind == b"VP8 " and raw[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", raw[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and raw[20] == 0x2F:
        bits = int.from_bytes(raw[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return 0, 0
