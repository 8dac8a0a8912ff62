"""The upstreams of benchmarks/mixed_load.py, in a process of their own: two endpoints with faults by a seeded table.

    python benchmarks/mixed_load_upstream.py SEED    # prints their ports; GET /books tells what was billed

A request carries its number ("job 17"). What becomes of an attempt is drawn from the seed, the number and how many
attempts came before, so it does not depend on the order in which requests arrive.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import struct
import sys
from asyncio import StreamWriter
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.dialects import DIALECTS, Said
from helpers.upstream import PAYER, Upstream, answer, begin, echo, error, event

SILENT, PAUSE = 15.0, 0.004
"""Seconds without a word, more than the gateway waits for (its time-outs are 10 s); and between two words."""
FAULTS: dict[str, tuple[float, bool]] = {
    "slow": (4.0, True),
    "no usage": (2.0, False),
    "impossible usage": (0.5, False),
    "half a stream": (2.0, False),
    "reset after it ran": (0.7, False),
    "500 after it ran": (0.4, False),
    "500": (0.4, False),
    "503": (0.4, True),
    "429": (0.4, True),
    "error event": (0.5, True),
    "error after text": (0.5, False),
    "silent": (0.2, False),
    "silent after text": (0.2, False),
    "runs past its cap": (0.3, True),
}
"""Fault -> percent of the attempts that have it, and whether the gateway is told what such an attempt is billed."""
_BURST, _EVERY, _EVERYWHERE = 60, 40, 400
"""Of jobs in a row that all get 500; one such row in so many at the second endpoint, and in so many at both."""


class Endpoint(Upstream):
    """An upstream that bills by the number of the request.

    Args:
        name: "one" or "two".
        seed: of the faults.
        books: number -> [billed, told, attempts], of both endpoints.
        faults: how often each fault was; of both endpoints.
    """

    def __init__(self, name: str, seed: int, books: dict[str, list[int]], faults: Counter[str]) -> None:
        super().__init__(self._serve_job)
        self.name, self.seed, self.books, self.faults = name, seed, books, faults
        self.reads = self._read

    @property
    def billed(self) -> int:
        """Of the job that runs."""
        return self.books[PAYER.get()][0]

    @billed.setter
    def billed(self, total: int) -> None:
        self.books[PAYER.get()][0] = total

    async def _read(self, server: Upstream, writer: StreamWriter, path: str, method: Any) -> None:
        told = {"books": self.books, "faults": self.faults} if path.endswith("/books") else {"data": []}
        await answer(writer, 200, told)

    async def _serve_job(self, server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        self.requests.clear()
        self.headers.clear()
        found = re.search(rb"job (\d+)", self.raw)
        assert found
        job = found[1].decode()
        PAYER.set(job)
        entry = self.books.setdefault(job, [0, 1, 0])
        entry[2] += 1
        rng = random.Random(f"{self.seed}/{job}/{entry[2]}")
        fault = self._fault(int(job), path, rng)
        if fault:
            self.faults[fault] += 1
        told = fault == "" or FAULTS[fault][1]
        entry[1] &= told
        try:
            await self._answer(fault, rng, writer, path, body)
        except ConnectionError:  # the gateway has closed it: the answer was not told whole
            entry[1] = 0
            raise

    def _fault(self, job: int, path: str, rng: random.Random) -> str:
        row = job // _BURST
        if (self.name == "two" and row % _EVERY == _EVERY - 1) or row % _EVERYWHERE == _EVERYWHERE - 1:
            return "500"
        if path.endswith("/count_tokens"):
            return ""
        left = rng.uniform(0, 100)
        for fault, (share, _) in FAULTS.items():
            left -= share
            if left < 0:
                return fault
        return ""

    async def _answer(self, fault: str, rng: random.Random, writer: StreamWriter, path: str, body: Any) -> None:
        """Answer a request with a fault, or "" with none."""
        words, streamed = rng.randint(1, 60), bool(body.get("stream"))
        read = len(self.raw.split())
        cap = body.get("max_tokens") or body.get("max_output_tokens") or 60
        made = 0 if path.endswith("/embeddings") else min(words, cap)
        if fault in ("500", "500 after it ran", "503", "429"):
            self.billed += read + made if fault == "500 after it ran" else 0
            return await error(int(fault[:3]))(self, writer, path, body)
        if fault in ("reset after it ran", "silent"):
            self.billed += read + made
            if fault == "silent":
                await asyncio.sleep(SILENT)
            else:  # the connection is reset, not closed
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return writer.close()
        if fault in ("error event", "error after text", "silent after text") and not streamed:
            if fault == "error event":
                return await answer(writer, 200, _overloaded(path))
            fault = "half a stream"
        if fault == "error event":
            await begin(writer)
            return await self._end_with(writer, _overloaded(path))
        if fault in ("error after text", "silent after text"):
            await self._begin_text(writer, path, read)
            if fault == "silent after text":
                await asyncio.sleep(SILENT)
                return writer.close()
            return await self._end_with(writer, _overloaded(path))
        cut = rng.randrange(made or 1) if fault == "half a stream" else None
        if body.get("tools"):
            said = Said(words=6, read=read, cached=2, tool=True, tells=fault != "no usage", cut=cut and 0)
            return await DIALECTS["openai"].says(said)(self, writer, path, body)
        if cut is not None and not streamed and path.endswith("/chat/completions"):
            self.billed += read + made
        step = echo(
            words=cap + 20 if fault == "runs past its cap" else words, prompt=read, cut_after=cut,
            pause=0.1 if fault == "slow" else PAUSE, delay=1.0 if fault == "slow" else 0.0,
            reports=fault != "no usage", keeps_cap=fault != "runs past its cap",
            **({"completion_tokens": -3} if fault == "impossible usage" else {}),
        )  # fmt: skip
        await step(self, writer, path, body)

    async def _begin_text(self, writer: StreamWriter, path: str, read: int) -> None:
        """The first words of a stream."""
        self.billed += read
        await begin(writer)
        if path.endswith("/messages"):
            message = {"id": "m", "type": "message", "role": "assistant", "model": "echo-1", "content": []}
            message["usage"] = {"input_tokens": read, "output_tokens": 1}
            await event(writer, {"type": "message_start", "message": message}, "message_start")
        for i in range(3):
            await event(writer, *_word(path, i))
            self.billed += 1

    async def _end_with(self, writer: StreamWriter, last: Any) -> None:
        """Say a last event, and end the stream as if all was well."""
        await event(writer, last, last.get("type") if "type" in last else None)
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _overloaded(path: str) -> dict[str, Any]:
    """The error of a server that has too much to do, in the route's dialect."""
    told = {"type": "overloaded_error", "message": "Overloaded", "code": 529}
    return {"type": "error", "error": told} if path.endswith(("/messages", "/responses")) else {"error": told}


def _word(path: str, number: int) -> tuple[Any, str | None]:
    """An event with a word, and its name."""
    if path.endswith("/messages"):
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
        return delta, "content_block_delta"
    if path.endswith("/responses"):
        kind = "response.output_text.delta"
        said = {"type": kind, "sequence_number": number, "output_index": 0, "content_index": 0, "delta": "word "}
        return {**said, "item_id": "m"}, kind
    choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
    return {"id": "c", "created": 1, "model": "echo-1", "object": "chat.completion.chunk", "choices": [choice]}, None


async def main() -> None:
    """Serve until the process is ended."""
    books: dict[str, list[int]] = {}
    faults: Counter[str] = Counter()
    async with (
        Endpoint("one", int(sys.argv[1]), books, faults) as one,
        Endpoint("two", int(sys.argv[1]), books, faults) as two,
    ):
        print(json.dumps([one.port, two.port]), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
