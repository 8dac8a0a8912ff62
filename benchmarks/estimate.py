"""How much to reserve: over- and under-reservation of the adaptive estimator, and the work it lets through.

    python benchmarks/estimate.py --data DIR    # real traces below DIR; writes benchmarks/results/estimate.json
    python benchmarks/estimate.py               # synthetic traces only, seeded
    python benchmarks/estimate.py --quick --out FILE

Reservation: the estimator walks through each trace; it reserves for a call, then sees what the call used.

Work: sessions of consecutive calls share a small budget, several calls in flight. A call whose reservation does not fit
is refused and lost. The omniscient scheduler reserves what each call will use; the others are compared with the tokens
of the calls that it completes. ``bound``: reserve the worst case. ``quantile``: reserve the learnt quantile, let the
call finish; what it uses beyond its reservation is overshoot, and the declared bound is the sum over the calls in
flight of worst case minus reservation. ``extended``: a stream that extends its reservation as it goes and is
cut where the budget refuses: its output cannot overshoot, and cut tokens are wasted, not work.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import heapq
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.metering.call import STEP
from budgeteer.metering.estimate import Estimator, State

OUT = Path(__file__).parent / "results" / "estimate.json"
CAP = 4096
"""Output cap of every request; the traces do not record theirs. Longer answers count as cut by it."""


@dataclass(frozen=True, slots=True)
class Call:
    """Tokens of one call: bounds before it, actual ones after."""

    bound_in: int
    bound_out: int
    read: int
    made: int


POLICIES = ("omniscient", "bound", "quantile", "extended")
Sides = tuple[Estimator, Estimator]
LEARNERS: dict[str, Sides] = {
    "quantile": (Estimator(quantile=0.975), Estimator(quantile=0.975)),  # 19 of 20 calls in both
    "extended": (Estimator(quantile=0.99), Estimator(quantile=0.95)),  # the prompt cannot be cut, the answer can
}
"""Estimators of input and output."""


def azure(path: Path) -> list[Call]:
    """Azure 2023: context tokens are taken as counted exactly before the call, the output as unknown up to the cap."""
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    return [_call(int(r["ContextTokens"]), int(r["GeneratedTokens"])) for r in rows]


def mooncake(path: Path) -> list[Call]:
    """Mooncake: as azure."""
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    return [_call(r["input_length"], r["output_length"]) for r in rows]


def agent_steps(path: Path) -> list[Call]:
    """mini-SWE-agent: a step's prompt is bounded by the last step's prompt and answer and the characters that the
    environment answered; what the API counted is the actual. First steps are left out, their prompt is not recorded."""
    calls, last = [], None
    with gzip.open(path, "rt") as file:
        for row in map(json.loads, file):
            if last is not None and last["run"] == row["run"] and last["instance_id"] == row["instance_id"]:
                new = last["observation_chars"] + 64
                bound = last["prompt_tokens"] + last["completion_tokens"] + new
                calls.append(_call(row["prompt_tokens"], row["completion_tokens"], bound))
            last = row
    return calls


def synthetic(seed: int, n: int, drift: float = 1.0) -> list[Call]:
    """Lognormal lengths, their median drifting by the factor over the trace; prompts bounded by 4 bytes a token."""
    rng = np.random.default_rng(seed)
    growth = drift ** (np.arange(n) / n)
    made = np.minimum(np.exp(rng.normal(np.log(130), 1.0, n)) * growth, CAP).astype(int) + 1
    read = np.exp(rng.normal(np.log(1000), 0.8, n)).astype(int) + 1
    ratio = rng.normal(4.2, 0.4, n).clip(2)
    return [_call(int(r), int(m), int(r * b)) for r, m, b in zip(read, made, ratio, strict=True)]


def _call(read: int, made: int, bound: int | None = None) -> Call:
    return Call(max(1, read if bound is None else bound), CAP, max(1, read), max(1, min(made, CAP)))


def traces(data: Path | None, quick: bool) -> dict[str, list[Call]]:
    """Synthetic ones, and the real ones found below ``data``."""
    n = 400 if quick else 8000
    by_name = {
        "synthetic": synthetic(0, n),
        "synthetic, answers grow 4x": synthetic(1, n, 4.0),
        "synthetic, answers shrink 4x": synthetic(2, n, 0.25),
    }
    if data is not None:
        by_name["azure 2023 conversation"] = azure(data / "azure_llm_2023" / "AzureLLMInferenceTrace_conv.csv.gz")
        by_name["azure 2023 code"] = azure(data / "azure_llm_2023" / "AzureLLMInferenceTrace_code.csv.gz")
        by_name["mooncake conversation"] = mooncake(data / "mooncake_fast25" / "conversation_trace.jsonl.gz")
        by_name["mini-SWE-agent steps"] = agent_steps(data / "mini_swe_agent_steps" / "steps.jsonl.gz")
    return by_name


def reservation(calls: list[Call], quantile: float) -> dict[str, Any]:
    """Walk through a trace; how far reservations are from what was used."""
    estimator, state = Estimator(quantile=quantile / 2 + 0.5), State()  # two sides: half the misses each
    sides = estimator, estimator
    reserved = used = misses = under = 0
    for call in calls:
        r_in, r_out = estimator.reserve(state, "in", call.bound_in), estimator.reserve(state, "out", call.bound_out)
        state = observed(sides, state, call)
        missed = call.read > r_in or call.made > r_out
        misses += missed
        under += max(0, call.read - r_in) + max(0, call.made - r_out)
        reserved += r_in + r_out
        used += call.read + call.made
    bound = sum(c.bound_in + c.bound_out for c in calls)
    return {
        "quantile": quantile,
        "calls": len(calls),
        "bound_over_actual": bound / used,
        "reserved_over_actual": reserved / used,
        "under_reserved_calls": misses / len(calls),
        "under_reserved_tokens": under / used,
        "calls_beyond_their_bound": sum(c.read > c.bound_in for c in calls) / len(calls),
    }


def observed(sides: Sides, state: State, call: Call) -> State:
    """The state after both sides of a call."""
    state = sides[0].observe(state, "in", call.bound_in, call.read)
    return sides[1].observe(state, "out", call.bound_out, call.made)


@dataclass(slots=True)
class Account:
    """A budget in a session, and what became of it."""

    free: int
    work: int = 0
    completed: int = 0
    refused: int = 0
    cut: int = 0
    wasted: int = 0
    overshoot: int = 0
    declared: int = 0
    uncovered: int = 0


def session(calls: list[Call], arrivals: Any, budget: int, policy: str, state: State) -> Account:
    """Run one session; a token of output takes one unit of time."""
    account = Account(budget)
    events: list[tuple[float, int, int, int, int, int]] = []
    for n, (call, at) in enumerate(zip(calls, arrivals, strict=True)):
        state = _advance(account, calls, events, float(at), policy, state)
        r_in, r_out = _reserve(call, policy, state)
        if r_in + r_out > account.free:
            account.refused += 1
            continue
        account.free -= r_in + r_out
        slack = max(0, call.bound_in - r_in) + (0 if policy == "extended" else max(0, call.bound_out - r_out))
        account.uncovered += slack if policy in LEARNERS else 0
        account.declared = max(account.declared, account.uncovered)
        first = min(r_out, call.made) if policy == "extended" else call.made
        heapq.heappush(events, (float(at) + first, n, r_in, r_out, first, slack))
    _advance(account, calls, events, float("inf"), policy, state)
    account.overshoot = max(0, -account.free)
    return account


def _reserve(call: Call, policy: str, state: State) -> tuple[int, int]:
    if policy == "omniscient":
        return call.read, call.made
    if policy == "bound":
        return call.bound_in, call.bound_out
    sides = LEARNERS[policy]
    r_in, r_out = sides[0].reserve(state, "in", call.bound_in), sides[1].reserve(state, "out", call.bound_out)
    return r_in, min(r_out, call.bound_out)


def _advance(account: Account, calls: list[Call], events: list[Any], now: float, policy: str, state: State) -> State:
    """Let everything happen that happens up to ``now``."""
    while events and events[0][0] <= now:
        at, n, r_in, r_out, done, slack = heapq.heappop(events)
        call = calls[n]
        if done < call.made and account.free >= 1:  # a stream at the end of its reservation, with something left
            more = min(STEP, account.free)
            account.free -= more
            reach = min(done + more, call.made)
            heapq.heappush(events, (at + reach - done, n, r_in, r_out + more, reach, slack))
            continue
        account.free += r_in + r_out - call.read - done
        account.uncovered -= slack if policy in LEARNERS else 0
        if done < call.made:
            account.cut += 1
            account.wasted += call.read + done
        else:
            account.completed += 1
            account.work += call.read + call.made
            if policy in LEARNERS:
                state = observed(LEARNERS[policy], state, call)
    return state


def work(calls: list[Call], budget_calls: int, in_flight: int, seeds: int, sessions: int) -> dict[str, Any]:
    """Compare the policies over seeded sessions; the estimator has seen the 500 calls before each session."""
    span, warm = 2 * budget_calls, min(500, len(calls) // 4)
    shares: dict[str, list[float]] = {p: [] for p in POLICIES[1:]}
    totals: dict[str, dict[str, int]] = {p: {} for p in POLICIES}
    violations = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        done = dict.fromkeys(POLICIES, 0)
        for _ in range(sessions):
            begin = int(rng.integers(warm, len(calls) - span))
            part = calls[begin : begin + span]
            gap = np.mean([c.made for c in part]) / in_flight
            arrivals = np.cumsum(rng.exponential(gap, span))
            budget = int(budget_calls * np.mean([c.read + c.made for c in part]))
            for policy in POLICIES:
                state = State()
                if policy in LEARNERS:
                    for call in calls[begin - warm : begin]:
                        state = observed(LEARNERS[policy], state, call)
                account = session(part, arrivals, budget, policy, state)
                done[policy] += account.work
                violations += account.overshoot > account.declared
                t = totals[policy]
                for name in ("work", "completed", "refused", "cut", "wasted", "overshoot", "declared"):
                    t[name] = t.get(name, 0) + getattr(account, name)
                t["budget"] = t.get("budget", 0) + budget
                t["overshot_sessions"] = t.get("overshot_sessions", 0) + (account.overshoot > 0)
        for policy in shares:
            shares[policy].append(done[policy] / done["omniscient"])
    return {
        "budget_in_mean_calls": budget_calls,
        "in_flight": in_flight,
        "seeds": seeds,
        "sessions_a_seed": sessions,
        "share_of_omniscient_work": {
            p: {"mean": float(np.mean(s)), "min": min(s), "max": max(s)} for p, s in shares.items()
        },
        "omniscient_share_of_budget": totals["omniscient"]["work"] / totals["omniscient"]["budget"],
        "overshoot_share_of_budget": {p: t["overshoot"] / t["budget"] for p, t in totals.items()},
        "declared_bound_share_of_budget": {p: t["declared"] / t["budget"] for p, t in totals.items()},
        "overshot_sessions": {p: t["overshot_sessions"] for p, t in totals.items()},
        "wasted_share_of_budget": {p: t["wasted"] / t["budget"] for p, t in totals.items()},
        "completed_calls": {p: t["completed"] for p, t in totals.items()},
        "overshoots_beyond_the_declared_bound": violations,
    }


def rows(traces_by_name: dict[str, list[Call]], quick: bool) -> Iterator[dict[str, Any]]:
    """Every trace, measured."""
    seeds, sessions = (2, 2) if quick else (10, 10)
    for name, calls in traces_by_name.items():
        result: dict[str, Any] = {"trace": name, "calls": len(calls), "cap": CAP}
        result["reservation"] = [reservation(calls, q) for q in (0.9, 0.95, 0.99)]
        settings = [(20, 4)] if quick else [(10, 4), (30, 4), (30, 16), (100, 16)]
        result["work"] = [work(calls, k, c, seeds, sessions) for k, c in settings]
        yield result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder with the real traces")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results = []
    for row in rows(traces(args.data, args.quick), args.quick):
        results.append(row)
        middle = row["reservation"][1]
        print(
            f"{row['trace']}: bound {middle['bound_over_actual']:.2f}x, reserved {middle['reserved_over_actual']:.2f}x "
            f"at 0.95, under-reserved {middle['under_reserved_calls']:.1%} of calls"
        )
        for w in row["work"]:
            shares = ", ".join(f"{p} {s['mean']:.1%}" for p, s in w["share_of_omniscient_work"].items())
            over = ", ".join(f"{p} {s:.2%}" for p, s in w["overshoot_share_of_budget"].items() if s)
            print(
                f"  budget of {w['budget_in_mean_calls']} calls, {w['in_flight']} in flight: {shares}; "
                f"overshoot {over or 0}; beyond the declared bound {w['overshoots_beyond_the_declared_bound']}"
            )
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        payload = {"quick": args.quick, "python": platform.python_version(), "traces": results}
        out.write_text(json.dumps(payload, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
