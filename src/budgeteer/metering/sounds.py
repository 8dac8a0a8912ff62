"""The length of a sound file in seconds, from its frames or its header: WAV, MP3, FLAC, Ogg, MP4 (m4a), WebM.

Where only a header tells the length, a file of many bytes is taken to be no shorter than its bytes are at a high rate,
so that a header that says too little gains little.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction

_DENSEST = 64_000
"""Bytes a second of the densest compressed sound."""
_SPARSEST = 250
"""Bytes a second of the sparsest speech that recorders write; a WebM file that does not tell its length is bounded by
them."""
_MP3_RATES = (44_100, 48_000, 32_000)
_MP3_KBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""(version, layer) -> kbit/s by index, from 1."""
_BOXES = frozenset((b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid"))
FORMATS = "wav, mp3, flac, ogg, m4a, mp4 and webm"


def seconds_of(data: bytes) -> Fraction | None:
    """How many seconds a sound file has, at most; None if its format is not known, or it does not say.

    >>> head = b"RIFF....WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    >>> seconds_of(head + bytes(15_964))
    Fraction(1, 1)
    """
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return _wav(data)
    if data[:4] == b"fLaC":
        return _with_floor(_flac(data), data)
    if data[:4] == b"OggS":
        return _with_floor(_ogg(data), data)
    if data[:4] == b"\x1aE\xdf\xa3":
        return _webm(data)
    if data[4:8] in _BOXES:
        return _with_floor(_mp4(data), data)
    if data[:3] == b"ID3" or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0):
        return _mp3(data)
    return None


def _with_floor(seconds: Fraction | None, data: bytes) -> Fraction | None:
    return None if seconds is None else max(seconds, Fraction(len(data), _DENSEST))


def _wav(data: bytes) -> Fraction | None:
    """All bytes of the file at the rate of its samples: what a header says of its own length does not count."""
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"fmt " and size >= 16 and at + 24 <= len(data):
            kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data, at + 8)
            a_second = Fraction(channels * rate * bits, 8)
            if kind not in (1, 3, 6, 7, 0xFFFE) or not a_second:  # samples of a fixed size: PCM, floats, A-law, mu-law
                return None
            return Fraction(len(data)) / a_second
        at += 8 + size + size % 2
    return None


def _flac(data: bytes) -> Fraction | None:
    if len(data) < 26:
        return None
    word = int.from_bytes(data[18:26])
    rate, samples = word >> 44, word & (2**36 - 1)
    return Fraction(samples, rate) if rate and samples else None


def _mp3(data: bytes) -> Fraction | None:
    """The length of all frames; bytes between them count at the lowest rate."""
    at = 0
    if data[:3] == b"ID3" and len(data) >= 10:
        at = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    total, lost, frames = Fraction(0), 0, 0
    samples_at: dict[int, int] = {}
    while at + 4 <= len(data):
        frame = _mp3_frame(data, at)
        if frame is None:
            after = data.find(b"\xff", at + 1)
            after = len(data) if after < 0 else after
            lost, at = lost + after - at, after
            continue
        size, samples, rate = frame
        samples_at[rate] = samples_at.get(rate, 0) + samples
        at, frames = at + size, frames + 1
    if not frames:
        return None
    total = sum((Fraction(samples, rate) for rate, samples in samples_at.items()), Fraction(0))
    return total + Fraction(lost, 1000)


def _mp3_frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    """(bytes, samples, samples a second) of the frame at a place; None if none begins there."""
    if data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = (data[at + 1] >> 3) & 3, 4 - ((data[at + 1] >> 1) & 3)
    index, rate_index, padding = data[at + 2] >> 4, (data[at + 2] >> 2) & 3, (data[at + 2] >> 1) & 1
    if version == 1 or layer == 4 or index in (0, 15) or rate_index == 3:
        return None
    first = version == 3
    rate = _MP3_RATES[rate_index] >> (0 if first else 1 if version == 2 else 2)
    bits = _MP3_KBITS[1 if first else 2, layer][index - 1] * 1000
    if layer == 1:
        return (12 * bits // rate + padding) * 4, 384, rate
    samples = 1152 if first or layer == 2 else 576
    return samples // 8 * bits // rate + padding, samples, rate


def _ogg(data: bytes) -> Fraction | None:
    """The position of the last page of each stream, together."""
    rates: dict[bytes, int] = {}
    ends: dict[bytes, int] = {}
    at = 0
    while at + 27 <= len(data) and data[at : at + 4] == b"OggS":
        position, serial, segments = (
            int.from_bytes(data[at + 6 : at + 14], "little"),
            data[at + 14 : at + 18],
            data[at + 26],
        )
        body = at + 27 + segments
        if serial not in rates:
            packet = data[body : body + 40]
            if packet.startswith(b"OpusHead"):
                rates[serial] = 48_000
            elif packet.startswith(b"\x01vorbis"):
                rates[serial] = int.from_bytes(packet[12:16], "little")
            elif packet.startswith(b"\x7fFLAC"):
                rates[serial] = int.from_bytes(packet[27:30]) >> 4
            else:
                return None
        if position < 2**63:
            ends[serial] = max(ends.get(serial, 0), position)
        at = body + sum(data[at + 27 : body])
    if not ends or not all(rates.values()):
        return None
    return sum((Fraction(end, rates[serial]) for serial, end in ends.items()), Fraction(0))


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, begin, end) of the content of each box of an MP4."""
    while at + 8 <= end:
        size, name, head = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16]), 16
        if size == 0:
            size = end - at
        if size < head:
            return
        yield name, at + head, min(at + size, end)
        at += size


def _mp4(data: bytes) -> Fraction | None:
    """The longest length of the film and its tracks; None of a file in fragments, whose header does not have it."""
    longest: Fraction | None = None
    for name, begin, end in _boxes(data, 0, len(data)):
        if name == b"moof":
            return None
        if name != b"moov":
            continue
        for inner, at, stop in _boxes(data, begin, end):
            seconds = _mp4_header(data, at) if inner == b"mvhd" else None
            if inner == b"trak":
                tracks = [_boxes(data, a, b) for box, a, b in _boxes(data, at, stop) if box == b"mdia"]
                seconds = next(
                    (_mp4_header(data, a) for track in tracks for box, a, _ in track if box == b"mdhd"), None
                )
            if seconds is not None:
                longest = max(seconds, longest or seconds)
    return longest or None


def _mp4_header(data: bytes, at: int) -> Fraction | None:
    long = data[at : at + 1] == b"\x01"
    scale_at, size = (at + 20, 8) if long else (at + 12, 4)
    scale = int.from_bytes(data[scale_at : scale_at + 4])
    length = int.from_bytes(data[scale_at + 4 : scale_at + 4 + size])
    return Fraction(length, scale) if scale and length < 2 ** (8 * size) - 1 else None


def _webm(data: bytes) -> Fraction:
    """The length that the header tells, else what the bytes can be: browsers record without knowing it."""
    told, head = Fraction(0), data[:4096]
    at = head.find(b"\x44\x89")  # Duration
    if at >= 0 and head[at + 2 : at + 3] in (b"\x84", b"\x88"):
        size = head[at + 2] & 0x7F
        kind = ">f" if size == 4 else ">d"
        if at + 3 + size <= len(head):
            (ticks,) = struct.unpack_from(kind, head, at + 3)
            scale, mark = 1_000_000, head.find(b"\x2a\xd7\xb1")  # TimestampScale
            if mark >= 0 and 0x81 <= head[mark + 3] <= 0x88:
                scale = int.from_bytes(head[mark + 4 : mark + 4 + (head[mark + 3] & 0x7F)])
            if 0 < ticks < 1e15:
                told = Fraction(ticks) * scale / 10**9
    return max(told, Fraction(len(data), _DENSEST)) if told else Fraction(len(data), _SPARSEST)
