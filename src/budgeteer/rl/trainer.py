"""RL with verifiable rewards under a hard token budget.

One step: estimate, allocate, sample (perhaps in rounds), verify, compute advantages, update. Every sampled token is
counted; the sampler is given what is left of the budget and cannot exceed it. All random numbers are functions of
(seed, step, purpose), so a run that is killed and resumed from its last checkpoint is the same run.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.errors import BudgetExceeded, CheckpointError, Diverged, InvalidInput, UnknownName
from budgeteer.core.plan import ABORTED, CUT, F64, I64, Items, Plan, whole
from budgeteer.core.stopper import Event, Stopper
from budgeteer.engine.llama import Llama
from budgeteer.models.policy import Markers
from budgeteer.rl.history import History, estimates, record
from budgeteer.rl.identity import ALGORITHM, differences, digest, fingerprint
from budgeteer.rl.ratio import clipped
from budgeteer.rl.recipe import Recipe, View
from budgeteer.rl.rollouts import Rollouts
from budgeteer.rl.sampler import sample
from budgeteer.rl.surrogate import prompt_features
from budgeteer.rl.weight import thin

ScoreFn = Callable[[I64, list[list[int]]], F64]
"""(prompt index [n], completions as token ids) -> [n] rewards."""
SAVE_EVERY = 8
"""Steps between checkpoints."""
MICRO = 1536
"""Positions of one forward-backward pass; small enough that activations stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What all recipes of a comparison share.

    Attributes:
        steps: optimiser phases of a run (a step has ``minibatches`` updates).
        prompts: prompts a step.
        group: rollouts a prompt that the uniform allocator gives at 100 %.
        max_tokens: cap of a rollout.
        lr: of AdamW at its height, after ``warmup`` steps; it decays to a tenth over the last quarter.
        kl: weight of a KL penalty to the starting policy (0 = none; its reference pass costs time, not tokens).
        temperature: of sampling; the update uses the same.
        eval_every: steps between evaluations of the curve; 0 = none.
        seed: of everything.
        device, dtype: ``"auto"`` = CUDA when there is one, float32.
    """

    steps: int = 48
    prompts: int = 32
    group: int = 8
    max_tokens: int = 96
    lr: float = 5e-4
    warmup: int = 4
    minibatches: int = 2
    kl: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    temperature: float = 1.0
    eval_every: int = 8
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        least = {"steps": 0, "prompts": 1, "group": 1, "max_tokens": 1, "warmup": 0, "minibatches": 1, "eval_every": 0}
        for name, low in least.items():
            if whole(f"TrainConfig.{name}", getattr(self, name), low) > 2**31:
                raise InvalidInput(f"TrainConfig.{name} is {getattr(self, name)}; give 2^31 at most")
        for name in ("lr", "kl", "weight_decay", "max_grad_norm", "temperature"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InvalidInput(f"TrainConfig.{name} is {value}; give a finite number, 0 or more")


@dataclass(slots=True)
class Progress:
    """Everything that changes during a run, and therefore everything a checkpoint holds besides weights.

    Attributes:
        step, cursor: steps done; prompts taken from the endless stream of epochs.
        planned: tokens that the plans expected to spend.
        used: sampled tokens, every one of them; ``used = trained + wasted + `` those of complete rows without gradient.
        trained: tokens of rows that carried gradient, aborted rows included where the recipe trains on them.
        wasted: tokens of rows that were aborted, or cut short by the end of the budget, and carried no gradient.
        prefill: prompt tokens computed.
        seconds: of training, evaluation excluded.
        phases: seconds of allocation, stopping, sampling, training, verifying.
        curve: points of accuracy against tokens and seconds.
        steps_log: one row a step.
        traces: sample rollouts of the last step.
    """

    step: int = 0
    cursor: int = 0
    planned: float = 0.0
    used: int = 0
    trained: int = 0
    wasted: int = 0
    prefill: int = 0
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    steps_log: list[dict[str, Any]] = field(default_factory=list)
    traces: list[dict[str, Any]] = field(default_factory=list)


def choose_device(name: str) -> torch.device:
    """``"auto"`` = CUDA when there is one.

    Raises:
        InvalidInput: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InvalidInput(
            f"device {name!r} is not to be had here ({str(error)[:80]}); use cpu, cuda or auto"
        ) from error
    return device


DTYPES = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
"""What the forward pass computes in; weights stay float32."""


@contextmanager
def _phase(clock: dict[str, float], name: str) -> Iterator[None]:
    """Add the block's seconds to ``clock[name]``."""
    start = time.perf_counter()
    yield
    clock[name] = clock.get(name, 0.0) + time.perf_counter() - start


def _timed(stopper: Stopper, clock: dict[str, float]) -> Stopper:
    """The same stopper, its seconds moved from the phase "sampling" around it to a phase of its own."""

    def step(state: Any, event: Event) -> Any:
        start = time.perf_counter()
        result = stopper.step(state, event)
        took = time.perf_counter() - start
        clock["stopping"] = clock.get("stopping", 0.0) + took
        clock["sampling"] = clock.get("sampling", 0.0) - took
        return result

    return stopper._replace(step=step)


def token_logprobs(
    model: Llama, prompts: Sequence[Sequence[int]], tokens: I64, length: I64, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the completions' tokens, flattened row by row.

    Args:
        prompts: n prompts; tokens: [n, t] completions; length: [n].

    Returns:
        (log-probabilities [sum(length)], mask [n, t] of the positions they belong to).
    """
    n = len(length)
    starts = np.array([len(p) for p in prompts])
    width = int((starts + length).max())
    full = np.zeros((n, width), np.int64)
    for i, prompt in enumerate(prompts):
        full[i, : starts[i]] = prompt
        full[i, starts[i] : starts[i] + length[i]] = tokens[i, : length[i]]
    place = np.arange(width)[None, :]
    predicts = (place >= starts[:, None] - 1) & (place < (starts + length)[:, None] - 1)
    device = model.device
    batch = torch.from_numpy(full).to(device)
    hidden = model(batch)[torch.from_numpy(predicts).to(device)]
    logp = F.log_softmax(model.logits(hidden).float() / temperature, -1)
    target = torch.from_numpy(tokens[np.arange(tokens.shape[1])[None, :] < length[:, None]]).to(device)
    mask = torch.from_numpy(np.arange(tokens.shape[1])[None, :] < length[:, None])
    return logp.gather(-1, target[:, None])[:, 0], mask


def weights_of(model: Llama) -> str:
    """A fingerprint of a model's weights."""
    state = model.state_dict()
    return digest(*(state[name].detach().cpu().numpy().tobytes() for name in sorted(state)))


def same_run(path: Path, identity: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that is damaged or of another run; its weights are not read.

    Args:
        identity: of this run; names that it leaves out are not compared.

    Raises:
        CheckpointError: names what differs.
    """
    try:
        theirs = json.loads(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["identity"])
    except Exception as error:
        raise CheckpointError(f"cannot read checkpoint {path} ({error}); delete it to start afresh") from error
    mine = json.loads(json.dumps(dict(identity)))
    found = differences(mine, {name: theirs.get(name) for name in mine})
    if found:
        raise CheckpointError(f"{path} is of another run ({found}); choose another folder, or delete it")


class Trainer:
    """One run of one recipe.

    Args:
        recipe: what to do with the tokens.
        config: what all recipes share.
        model: the starting policy; trained in place.
        prompts: token ids of each training prompt.
        keys: distinct keys of the training prompts.
        score: verifier.
        markers: structural tokens.
        budget: hard cap of sampled tokens of the run; None = no cap.
        step_budget: hard cap of sampled tokens of each step; None = no cap of its own. With neither, the allocator of
            a recipe with pace "step" splits in each step what ``config.group`` rollouts a prompt are expected to cost,
            and one with pace "run" takes what it wants.
        identity: what else decides the run and its rewards, such as the content of the task, for checkpoints.
        evaluate: called now and then with the model; returns held-out accuracy. Not on the bill.
    """

    def __init__(
        self,
        recipe: Recipe,
        config: TrainConfig,
        model: Llama,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[str],
        score: ScoreFn,
        markers: Markers,
        *,
        budget: int | None = None,
        step_budget: int | None = None,
        evaluate: Callable[[Llama], float] | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        if len(prompts) < config.prompts:
            raise InvalidInput(f"{len(prompts)} training prompts, {config.prompts} a step asked; lower prompts a step")
        longest, positions = max(map(len, prompts)) + config.max_tokens, model.config.max_position_embeddings
        if longest > positions:
            raise InvalidInput(
                f"the longest prompt with {config.max_tokens} tokens of a rollout makes {longest}; the model has "
                f"{positions} positions, so lower max_tokens by {longest - positions}"
            )
        self.recipe, self.config, self.markers, self.score = recipe, config, markers, score
        self.model = model.to(choose_device(config.device))
        if config.dtype not in DTYPES:
            raise UnknownName("dtype", config.dtype, DTYPES)
        self.dtype = DTYPES[config.dtype]
        self.prompts = [tuple(map(int, p)) for p in prompts]
        self.keys = list(keys)
        self.index = {key: i for i, key in enumerate(self.keys)}
        self.features = prompt_features(self.prompts)
        self.budget, self.step_budget, self.evaluate = budget, step_budget, evaluate
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=config.weight_decay
        )
        self.reference: Llama | None = None
        if config.kl > 0:
            self.reference = Llama(self.model.config)
            self.reference.load_state_dict(self.model.state_dict())
            self.reference.to(self.model.device).requires_grad_(False)
        own = {
            **asdict(config), "recipe": recipe.name, "parts of the recipe": fingerprint(recipe), "tokens": budget,
            "tokens of a step": step_budget, "version of the algorithm": ALGORITHM,
        }  # fmt: skip
        self.identity: dict[str, Any] = {**own, **(identity or {})}
        self.identity.setdefault("problems", digest(json.dumps([self.keys, self.prompts]).encode()))
        self.identity.setdefault("weights of the model", weights_of(self.model))
        self.history = History.empty()
        self.state = recipe.allocator.init(Items((), np.zeros(0)))
        self.progress = Progress()

    # -- the stream of prompts ------------------------------------------------------------------------------------

    def _candidates(self, count: int) -> I64:
        """The next ``count`` distinct prompts of the endless stream of shuffled epochs."""
        size = len(self.prompts)
        epoch, offset = divmod(self.progress.cursor, size)
        # two epochs, from the offset on, hold every prompt
        orders = [np.random.default_rng((self.config.seed, epoch + i, 1)).permutation(size) for i in (0, 1)]
        ahead = np.concatenate(orders)[offset:]
        _, first = np.unique(ahead, return_index=True)
        return ahead[np.sort(first)[:count]]

    def _features_of(self, keys: Sequence[str]) -> F64:
        """[m, d] features of m prompts."""
        return self.features[[self.index[key] for key in keys]]

    # -- one step -------------------------------------------------------------------------------------------------

    def left(self) -> int | None:
        """Tokens left of the run's budget, None without one."""
        return None if self.budget is None else self.budget - self.progress.used

    def _share(self, items: Items) -> int:
        """Tokens that this step should use, as the allocator's budget."""
        left = self.left()
        shares = [] if self.step_budget is None else [self.step_budget]
        if left is not None:
            steps_left = max(self.config.steps - self.progress.step, 1)
            shares.append(left // steps_left if self.recipe.pace == "step" else left)
        if not shares and self.recipe.pace == "step":
            return math.ceil(self.config.group * self.config.prompts * float(items.cost.mean()))
        return min(shares) if shares else 2**62

    def _items(self) -> tuple[I64, Items]:
        """The step's candidate prompts, as indices and as items with the estimates of the recipe's memory."""
        picked = self._candidates(self.config.prompts * self.recipe.oversample)
        keys, zeros = tuple(self.keys[i] for i in picked), np.zeros(len(picked), np.int64)
        items = Items(keys, np.full(len(keys), 0.6 * self.config.max_tokens), drawn=zeros, right=zeros)
        return picked, estimates(self.history, items, self.recipe.memory, self.features[picked])

    def check(self) -> None:
        """Refuse a budget that buys no rollout in the first step, before anything is sampled.

        Raises:
            BudgetExceeded: says how many tokens would do.
        """
        c, recipe = self.config, self.recipe
        _, items = self._items()
        share = self._share(items)
        rng = np.random.default_rng((c.seed, self.progress.step, 0, 2))
        if recipe.allocator.allocate(share, items, self.state, rng=rng).units.any():
            return
        needed = self._least(items)
        total = needed * (c.steps if recipe.pace == "step" and self.budget is not None else 1)
        raise BudgetExceeded(
            kind="tokens", scope="step" if self.budget is None else "run", used=0, requested=needed, limit=share,
            hint=f"that buys no rollout; give at least {total:,} tokens or fewer steps",
        )  # fmt: skip

    def _least(self, items: Items) -> int:
        """Tokens with which the allocator buys something in the first step."""
        c = self.config
        low, high = 0, 1

        def buys(tokens: int) -> bool:
            rng = np.random.default_rng((c.seed, 0, 0, 2))
            return bool(self.recipe.allocator.allocate(tokens, items, self.state, rng=rng).units.any())

        while not buys(high) and high < 2**40:  # an allocator may buy nothing at any price
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if buys(middle) else (middle, high)
        return high

    def _collect(self, seed: int) -> tuple[Rollouts, View] | None:
        """Allocate and sample the step's rollouts; None when the budget buys none."""
        c, clock = self.config, self.progress.phases
        with _phase(clock, "allocation"):
            picked, items = self._items()
        keys = items.keys
        share = self._share(items)
        spent, parts = 0, []
        total = np.zeros(len(keys), np.int64)
        expected = 0.0
        for turn in range(self.recipe.rounds):
            with _phase(clock, "allocation"):
                rng = np.random.default_rng((c.seed, self.progress.step, turn, 2))
                plan = self.recipe.allocator.allocate(max(share - spent, 0), items, self.state, rng=rng)
                view = View(items, plan, self.history, c.max_tokens)
                stopper = self.recipe.stopper(view) if self.recipe.stopper and plan.units.sum() else None
            if not plan.units.sum():
                break
            left, caps = self.left(), [] if self.step_budget is None else [self.step_budget - spent]
            hard = min(caps + ([] if left is None else [left - spent]), default=None)
            half = torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)
            with _phase(clock, "sampling"), half:
                part, _ = sample(
                    self.model,
                    keys,
                    [self.prompts[i] for i in picked],
                    plan.units,
                    max_tokens=c.max_tokens,
                    markers=self.markers,
                    seed=seed * 64 + turn,
                    temperature=c.temperature,
                    stopper=_timed(stopper, clock) if stopper else None,
                    budget=hard,
                    compiled=None if self.dtype == torch.float32 else False,
                )
            with _phase(clock, "verifying"):
                texts = [part.tokens[i, : part.length[i]].tolist() for i in range(len(part))]
                part = replace(part, reward=self.score(picked[part.group], texts))
            parts.append(part)
            spent += part.used
            expected += plan.expected_cost
            total += part.counts
            right = np.bincount(part.group, part.reward > 0.99, minlength=len(keys)).astype(np.int64)
            drawn, good = items.column("drawn"), items.column("right")
            items = replace(items, drawn=(drawn + part.counts).astype(np.int64), right=(good + right).astype(np.int64))
        drawn_last = int(np.flatnonzero(total)[-1]) + 1 if total.any() else 0
        self.progress.cursor += max(c.prompts, drawn_last)
        if not parts:
            return None
        self.progress.planned += expected
        rollouts = Rollouts.concatenate(parts)
        return rollouts, View(items, Plan(keys, total, expected), self.history, c.max_tokens)

    def step(self) -> bool:
        """Do one step; False when the budget buys no rollout any more."""
        c, p, recipe = self.config, self.progress, self.recipe
        begin = time.perf_counter()
        collected = self._collect(c.seed * 100_003 + p.step)
        if collected is None:
            if p.step == 0:
                self.check()
            return False
        rollouts, view = collected
        # a row that the end of the budget cut short never had its chance: wasted, no gradient, no place in the history
        short = (rollouts.status == CUT) & (rollouts.length < c.max_tokens)
        rollouts = replace(rollouts, status=np.where(short, ABORTED, rollouts.status).astype(np.int8))
        aborted = rollouts.status == ABORTED
        advantage = recipe.advantage(rollouts, view)
        weighted = advantage * recipe.row_weight(rollouts, view)
        loglik = (rollouts.logprob * (np.arange(rollouts.tokens.shape[1]) < rollouts.length[:, None])).sum(1)
        seen = weighted if recipe.weighted_scores else advantage
        kept_weight = rollouts.weight[~short] if recipe.kept_lengths else None
        # the history is kept in plain rewards: an aborted row is a failure there only if the recipe says so
        outcomes = rollouts.outcomes(seen * loglik).take(~short)
        with _phase(p.phases, "allocation"):
            self.history = record(self.history, outcomes, recipe.memory, kept_weight, self._features_of)
            self.state = recipe.allocator.observe(self.state, outcomes)
        if recipe.aborted == "mask":
            weighted = np.where(aborted, 0.0, weighted)
        weighted = np.where(short, 0.0, weighted)
        rows = np.arange(len(rollouts))
        if recipe.select is not None:
            rows = recipe.select(rollouts, np.random.default_rng((c.seed, p.step, 3)))
        with _phase(p.phases, "training"):
            trained = self._update(rollouts, weighted, rows)
        wasted = aborted & ~trained
        p.used += rollouts.used
        p.wasted += int(rollouts.length[wasted].sum())
        p.trained += int(rollouts.length[trained].sum())
        p.prefill += rollouts.prefill_tokens
        self._log(rollouts, view, trained, wasted)
        p.step += 1
        p.seconds += time.perf_counter() - begin
        return True

    def _update(self, rollouts: Rollouts, advantage: F64, rows: I64) -> NDArray[np.bool_]:
        """``minibatches`` optimiser steps on the chosen rows; returns [n] which rows carried gradient.

        With a KL penalty all chosen rows do, for the penalty needs no advantage.
        """
        c, trained = self.config, np.zeros(len(rollouts), np.bool_)
        scale = self.recipe.token_weight(rollouts.length[rows], rollouts.group[rows])
        useful = np.ones(len(rows), np.bool_) if self.reference else np.abs(advantage[rows]) > 1e-9
        rng = np.random.default_rng((c.seed, self.progress.step, 4))
        if self.recipe.thin is not None:
            kept = thin(advantage[rows], rollouts.group[rows], self.recipe.thin, rng)
            useful, scale = useful & (kept > 0), scale * kept
        rows, scale = rows[useful], scale[useful] * useful.sum()
        trained[rows] = True
        if not len(rows):
            return trained
        order = rng.permutation(len(rows))
        for group in self.optimiser.param_groups:
            group["lr"] = c.lr * self._schedule()
        low, high = self.recipe.clip
        for part in np.array_split(order, min(c.minibatches, len(rows))):
            self.optimiser.zero_grad(set_to_none=True)
            lengths = rollouts.length[rows[part]] + np.array(
                [len(rollouts.prompts[g]) for g in rollouts.group[rows[part]]]
            )
            part = part[np.argsort(lengths, kind="stable")]
            lengths = np.sort(lengths)
            first = 0
            while first < len(part):
                last = first + 1
                while last < len(part) and (last + 1 - first) * lengths[last] <= MICRO:
                    last += 1
                micro = part[first:last]
                self._backward(rollouts, advantage, rows[micro], scale[micro] / len(part), low, high)
                first = last
            norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.max_grad_norm))
            if not math.isfinite(norm):
                advice = f"Lower --lr ({c.lr:g}), look at the rewards, or compute in --dtype float32"
                raise Diverged(self.progress.step + 1, f"the norm of the gradient is {norm}", advice)
            self.optimiser.step()
        return trained

    def _schedule(self) -> float:
        """Linear warm-up, then flat, then linear decay to a tenth over the last quarter of the steps or the budget."""
        c, p = self.config, self.progress
        done = p.step / c.steps
        if self.budget:
            done = max(done, p.used / self.budget)
        return min(1.0, (p.step + 1) / max(c.warmup, 1), 1 - 0.9 * (done - 0.75) / 0.25)

    def _backward(self, rollouts: Rollouts, advantage: F64, rows: I64, scale: F64, low: float, high: float) -> None:
        c, device = self.config, self.model.device
        prompts = [rollouts.prompts[g] for g in rollouts.group[rows]]
        tokens, length = rollouts.tokens[rows], rollouts.length[rows]
        with torch.autocast(device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            logprob, mask = token_logprobs(self.model, prompts, tokens, length, c.temperature)
        old = torch.from_numpy(rollouts.logprob[rows])[mask].to(device)
        row = torch.from_numpy(np.repeat(np.arange(len(rows)), length)).to(device)
        a = torch.from_numpy(advantage[rows].astype(np.float32)).to(device)[row]
        w = torch.from_numpy(scale.astype(np.float32)).to(device)[row]
        w = w * ~torch.from_numpy(rollouts.forced[rows])[mask].to(device)
        objective = clipped(logprob, old, a, low=low, high=high)
        if self.reference is not None:
            with torch.no_grad():
                base, _ = token_logprobs(self.reference, prompts, tokens, length, c.temperature)
            gap = base - logprob
            objective = objective - c.kl * (gap.exp() - gap - 1)  # low-variance estimate of KL(policy || reference)
        (-(objective * w).sum()).backward()  # type: ignore[no-untyped-call]

    def _log(self, rollouts: Rollouts, view: View, trained: NDArray[np.bool_], wasted: NDArray[np.bool_]) -> None:
        """One row of the log: tokens, and how many of the prompts that the step took from the stream got n rollouts."""
        p, units = self.progress, view.plan.units
        taken = max(self.config.prompts, int(np.flatnonzero(units)[-1]) + 1)
        counts, occurrences = np.unique(units[:taken], return_counts=True)
        level: dict[str, list[int]] = {}
        for g, key in enumerate(rollouts.keys):
            rows = rollouts.group == g
            if rows.any():
                used, lost = (int(rollouts.length[part].sum()) for part in (rows, rows & wasted))
                level[key] = [used, lost, int(rows.sum())]
        mixed = 0
        for g in range(len(rollouts.keys)):
            r = rollouts.reward[rollouts.group == g]
            mixed += int(len(r) > 1 and r.min() != r.max())
        p.steps_log.append({
            "step": p.step,
            "used": rollouts.used,
            "wasted": int(rollouts.length[wasted].sum()),
            "trained": int(rollouts.length[trained].sum()),
            "rollouts": len(rollouts),
            "mixed": mixed,
            "reward": float(rollouts.reward.mean()) if len(rollouts) else 0.0,
            "counts": {str(int(u)): int(n) for u, n in zip(counts, occurrences, strict=True)},
            "by_key": level,
        })  # fmt: skip
        chosen = np.linspace(0, len(rollouts) - 1, min(6, len(rollouts))).astype(int).tolist()
        stopped = np.flatnonzero(rollouts.status == ABORTED)[:3].tolist()
        p.traces = [
            {
                "key": rollouts.keys[rollouts.group[i]],
                "tokens": rollouts.tokens[i, : rollouts.length[i]].tolist(),
                "status": int(rollouts.status[i]),
                "reward": float(rollouts.reward[i]),
            }
            for i in [*chosen, *stopped]
        ]

    # -- the run --------------------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Add a point to the curve."""
        if self.evaluate is not None:
            p = self.progress
            p.curve.append({"tokens": p.used, "seconds": p.seconds, "accuracy": self.evaluate(self.model)})

    def run(
        self,
        folder: Path | None = None,
        on_step: Callable[[Progress], bool] | None = None,
        save_every: int = SAVE_EVERY,
    ) -> Progress:
        """Train until the steps or the budget are used up; continue from ``folder/checkpoint.pt`` if it is there.

        Args:
            folder: checkpoints go here; None = none are written.
            on_step: called after every step; returning False pauses the run at this step, with a checkpoint.
            save_every: steps between checkpoints; the last step has one in any case. Evaluations have their own
                interval and none of them is needed.
        """
        if folder is not None and (folder / "checkpoint.pt").exists():
            self.load(folder / "checkpoint.pt")
        c, p = self.config, self.progress
        saved = p.step
        if p.step == 0 and not p.curve:
            self.measure()
        while p.step < c.steps and (self.budget is None or p.used < self.budget or p.step == 0):
            if not self.step():
                break
            if c.eval_every and p.step % c.eval_every == 0 and p.step < c.steps:
                self.measure()
            pause = on_step is not None and not on_step(p)
            if folder is not None and (pause or p.step % save_every == 0):
                self.save(folder / "checkpoint.pt")
                saved = p.step
            if pause:
                break
        if folder is not None and p.step != saved:
            self.save(folder / "checkpoint.pt")
        return p

    def save(self, path: Path) -> None:
        """Write a checkpoint atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        content = {
            "identity": json.dumps(self.identity),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "reference": self.reference.state_dict() if self.reference else None,
            "history": json.dumps(dump_state(self.history)),
            "state": json.dumps(dump_state(self.state)),
            "progress": json.dumps(asdict(self.progress)),
        }
        torch.save(content, part)
        os.replace(part, path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same run.

        Raises:
            CheckpointError: the file is damaged or of another run; nothing is changed on disk.
        """
        same_run(path, self.identity)
        try:
            content = torch.load(path, map_location=self.model.device, weights_only=True)
            self.model.load_state_dict(content["model"])
            self.optimiser.load_state_dict(content["optimiser"])
            if self.reference is not None:
                self.reference.load_state_dict(content["reference"])
            self.history = load_state(History.empty(), json.loads(content["history"]))
            self.state = load_state(self.state, json.loads(content["state"]))
            self.progress = Progress(**json.loads(content["progress"]))
        except Exception as error:
            raise CheckpointError(f"cannot read checkpoint {path} ({error}); delete it to start afresh") from error
