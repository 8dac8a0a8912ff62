"""How much of a budget can be used, and how far it is overshot: hard limits of the gateway beside learnt ones.

    python benchmarks/learnt_reservations.py            # writes benchmarks/results/learnt_reservations.json
    python benchmarks/learnt_reservations.py --quick    # smoke test: one small run; writes nothing without --out

Three replicas share a SQLite ledger, and 128 clients of each tenant stream from all of them until its budget is gone:
who is told that others hold the rest (429) asks again after 0.1 s. Answers are lognormal (median 120 tokens, sigma
0.8), at most the requests' cap of 1,000. The upstream's own count is the truth. Four ways, in turns:

- ``hard``: every call reserves its worst case.
- ``learnt, cut``: a call holds what 95 of 100 calls used, more while its stream grows; the upstream stops when the
  connection closes (``cancels = true``), so the stream is cut where the budget ends.
- ``learnt, cut, tokenizer``: the same, and the gateway's file names the model's tokenizer, so that a cut stream is
  charged its tokens, and those that may have been on their way, rather than its bytes.
- ``learnt``: as ``learnt, cut``, in front of an upstream that goes on, so that nothing is cut.

Each way begins with calls of another account, as a gateway that has run for a while. ``used`` is what the upstream
billed beside the budget; ``over`` what of it is above 100 %, of the tenant that went farthest as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from budgeteer.lab.results import machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.gateway_fixture import Running, toml
from helpers.upstream import Upstream, begin, end, event, usage

OUT = Path(__file__).parent / "results" / "learnt_reservations.json"
CAP, PROMPT = 1000, 7
WAYS = {
    "hard": ("", "", ""),
    "learnt, cut": ("learnt ", "cancels = true", ""),
    "learnt, cut, tokenizer": ("learnt ", "cancels = true", 'tokenizer = "tokenizer.json"'),
    "learnt": ("learnt ", "", ""),
}
"""Way -> what stands before the limit, and what is declared of the upstream and of its models."""
REPLICAS = 3


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
        tenants, clients: tenants, and clients of each.
        budget: tokens of a tenant.
        seeds: runs of each way.
        warm: calls of another account before.
    """

    tenants: int = 2
    clients: int = 128
    budget: int = 60_000
    seeds: int = 4
    warm: int = 200


def tokenizer(folder: Path) -> None:
    """Write the upstream's tokenizer, of one token a word, beside the gateway's file."""
    made = Tokenizer(WordLevel({"word": 0, "[UNK]": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = WhitespaceSplit()
    made.save(str(folder / "tokenizer.json"))


def lengths(rng: random.Random) -> Any:
    """A step of an upstream: streams an answer of a random length, a token an event, and bills what it said."""

    async def step(server: Upstream, writer: asyncio.StreamWriter, path: str, body: Any) -> None:
        wanted = max(1, round(rng.lognormvariate(np.log(120), 0.8)))
        cap = body["max_tokens"]
        made = 0
        server.billed += PROMPT
        await begin(writer)
        chunk = {"id": "c", "created": 1, "model": "m", "object": "chat.completion.chunk"}
        for made in range(1, min(wanted, cap) + 1):
            server.billed += 1
            await event(writer, {**chunk, "choices": [{"index": 0, "delta": {"content": "word "}}]})
            if made % 8 == 0:
                await asyncio.sleep(0.002)
                if writer.is_closing():
                    return
        finish = "length" if wanted >= cap else "stop"
        await event(writer, {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        await event(writer, {**chunk, "choices": [], "usage": usage(PROMPT, made)})
        await event(writer, "[DONE]")
        await end(writer)

    return step


@dataclass
class Load:
    """The clients of one run."""

    session: aiohttp.ClientSession
    urls: list[str]
    counts: Counter[str]

    async def call(self, model: str, key: str, number: int) -> int:
        """One stream: 200, 429 if others hold what it needs, 402 if the budget is gone."""
        body = {"model": model, "stream": True, "max_tokens": CAP, "messages": [{"role": "user", "content": "Hi"}]}
        headers = {"authorization": f"Bearer {key}"}
        url = f"{self.urls[number % len(self.urls)]}/chat/completions"
        async with self.session.post(url, json=body, headers=headers) as response:
            said = await response.read()
            if response.status not in (200, 402, 429):
                raise SystemExit(f"{response.status}: {said[:500]!r}")
            self.counts["cut"] += b"stream_cut" in said
            self.counts["answered"] += response.status == 200
            self.counts["busy"] += response.status == 429
            return response.status

    async def client(self, model: str, key: str, number: int) -> None:
        """Call until the budget is gone, after a pause where others hold it."""
        while (status := await self.call(model, key, number)) != 402:
            if status == 429:
                await asyncio.sleep(0.1)
            number += 1


async def load(urls: list[str], keys: list[str], warm: str, size: Size) -> Counter[str]:
    """All calls of a run: those of the account that warms up, then the tenants'."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        clients = Load(session, urls, Counter())
        for begun in range(0, size.warm, 20):
            await asyncio.gather(*(clients.call("warm", warm, begun + k) for k in range(20)))
        clients.counts.clear()
        tenants = enumerate(keys)
        await asyncio.gather(*(clients.client(f"t{k}", key, n) for k, key in tenants for n in range(size.clients)))
        return clients.counts


def run(way: str, seed: int, size: Size) -> dict[str, Any]:
    """One run of a way."""
    prefix, declared, of_model = WAYS[way]
    models = ["warm", *(f"t{k}" for k in range(size.tenants))]
    step = lengths(random.Random(seed))
    with tempfile.TemporaryDirectory() as name, Upstream(**dict.fromkeys(models, step)) as upstream:
        folder = Path(name)
        text = toml(
            [("one", upstream.url, models, declared)],
            ledger=str(folder / "ledger.db"),
            kinds='["all", "learnt.all"]',
            cap=CAP,
        )
        for model in models:  # all learn for one model
            text = text.replace(f'name = "{model}"', f'name = "{model}"\nprice = "m"\n{of_model}')
        with contextlib.ExitStack() as stack:
            replicas = []
            for k in range(REPLICAS):
                (folder / str(k)).mkdir()
                tokenizer(folder / str(k))
                replicas.append(stack.enter_context(Running(folder / str(k), text)))
            warm = replicas[0].key("1000000000", f"learnt {10**9}", path="warm")
            keys = [replicas[0].key(f"{prefix}{size.budget}", path=f"t{k}") for k in range(size.tenants)]
            counts = asyncio.run(load([replica.url for replica in replicas], keys, warm, size))
            for replica in replicas:
                replica.do(replica.gateway.records.flush())
        used = [upstream.bills[f"t{k}"] / size.budget for k in range(size.tenants)]
    return {"seed": seed, "used": used, **{name: counts[name] for name in ("answered", "busy", "cut")}}


def summary(runs: list[dict[str, Any]], size: Size) -> dict[str, float]:
    """Means over tenants and runs; counts a tenant."""
    used = np.array([share for one in runs for share in one["used"]])
    over = np.maximum(used - 1, 0)
    rows = {"used": float(used.mean()), "over": float(over.mean()), "most_over": float(over.max())}
    for name in ("answered", "busy", "cut"):
        rows[name] = float(np.mean([one[name] for one in runs])) / size.tenants
    return {**rows, "used_std": float(used.std(ddof=1)) if len(used) > 1 else 0.0}


def main() -> None:
    """Run all ways in turns, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one small run of each way")
    parser.add_argument("--ways", nargs="*", choices=[*WAYS], default=[*WAYS], metavar="WAY", help="to measure anew")
    parser.add_argument("--out", type=Path, help=f"default {OUT.name} in results, with --quick nothing")
    args = parser.parse_args()
    size = Size(tenants=1, clients=24, budget=12_000, seeds=1, warm=80) if args.quick else Size()
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in args.ways}
    for seed in range(size.seeds):
        for way in args.ways:
            runs[way].append(run(way, seed, size))
            print(way, runs[way][-1], file=sys.stderr, flush=True)
    table = {way: summary(rows, size) for way, rows in runs.items()}
    for way, row in table.items():
        print(
            f"{way:22} used {row['used']:.1%}  over {row['over']:.2%} (most {row['most_over']:.2%})  "
            f"told to wait {row['busy']:.0f} times and cut {row['cut']:.1f} a tenant"
        )
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        if set(args.ways) < set(WAYS) and out.exists():  # the other ways stay as they were measured
            before = json.loads(out.read_text())
            table, runs = {**before["table"], **table}, {**before["runs"], **runs}
        result = {"machine": machine(), "size": vars(size), "cap": CAP, "replicas": REPLICAS}
        out.write_text(json.dumps({**result, "table": table, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
