"""RL with verifiable rewards under a hard token budget.

One step: estimate, allocate, sample (perhaps in rounds), verify, compute advantages, update. Every sampled token is
counted; the sampler is given what is left of the budget and cannot exceed it. All random numbers are functions of
(seed, step, purpose), so a run that is killed and resumed from its last checkpoint is the same run.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from budgeteer.core.errors import CheckpointError, Diverged, InvalidInput, UnknownName
from budgeteer.core.plan import F64, I64
from budgeteer.engine.llama import Llama
from budgeteer.models.policy import Markers
from budgeteer.rl import checkpoint, compress
from budgeteer.rl.asked import Wording, longest_asked
from budgeteer.rl.clock import phase, timed
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.control import Control
from budgeteer.rl.device import DTYPES, choose_device
from budgeteer.rl.identity import ALGORITHM, digest, fingerprint
from budgeteer.rl.logprobs import (
    MICRO,
    attention_of_last,
    backward_beside,
    entropies,
    of_heads,
    token_logprobs,
)
from budgeteer.rl.ratio import Tokens
from budgeteer.rl.recipe import ENTROPY, OFFSETS, SOLUTION, TEXT, Recipe, View
from budgeteer.rl.rollouts import Rollouts, per_token
from budgeteer.rl.sampler import sample
from budgeteer.rl.step import Progress, Update
from budgeteer.rl.texts import written

ScoreFn = Callable[[I64, list[list[int]]], F64]
"""(prompt index [n], completions as token ids) -> [n] rewards."""
DecodeFn = Callable[[list[list[int]]], list[str]]
"""Completions as token ids -> their texts."""
SAVE_EVERY = 8
"""Steps between checkpoints."""


def weights_of(model: Llama) -> str:
    """A fingerprint of a model's weights."""
    state = model.state_dict()
    return digest(*(state[name].detach().cpu().numpy().tobytes() for name in sorted(state)))


def _require_room(longest: int, positions: int) -> None:
    """Refuse prompts that are longer than the model's context together with a whole rollout."""
    if longest > positions:
        raise InvalidInput(
            f"the longest prompt, with all that is said in it and behind it, makes {longest} with a whole rollout; the "
            f"model has {positions} positions, so lower max_tokens by {longest - positions}"
        )


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
            a recipe with pace STEP splits in each step what ``config.group`` rollouts a prompt are expected to cost,
            and one with pace RUN takes what it wants.
        identity: what else decides the run and its rewards, such as the content of the task, for checkpoints.
        evaluate: called now and then with the model; returns held-out accuracy. Not on the bill.
        decode: texts of completions, for rewards that read the column ``text``; None = they are refused.
        columns: of the training prompts, for rewards: name of a column of rollouts -> one value a prompt.
        wording: the prompts' texts and how texts become tokens, for recipes with a variant; None = they are refused.
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
        decode: DecodeFn | None = None,
        columns: Mapping[str, Any] | None = None,
        wording: Wording | None = None,
    ) -> None:
        if len(prompts) < config.prompts:
            raise InvalidInput(f"{len(prompts)} training prompts, {config.prompts} a step asked; lower prompts a step")
        longest, positions = max(map(len, prompts)) + config.max_tokens, model.config.max_position_embeddings
        if recipe.variant and wording and wording.solutions and SOLUTION in recipe.variant.needs:
            longest += max(map(len, wording.write(["".join(steps) for steps in wording.solutions])))
        self.probe: list[int] = []
        if recipe.branch and compress.ATTENTION in recipe.branch.needs and wording:
            self.probe = list(wording.write([recipe.branch.text])[0])
            longest += len(self.probe)
        _require_room(longest, positions)
        self.recipe, self.config, self.markers, self.score = recipe, config, markers, score
        self.model = model.to(choose_device(config.device))
        if config.dtype not in DTYPES:
            raise UnknownName("dtype", config.dtype, DTYPES)
        self.dtype = DTYPES[config.dtype]
        self._half = self.dtype == torch.bfloat16
        self.prompts = [tuple(map(int, p)) for p in prompts]
        self.decode, offers = decode, [ENTROPY, *([TEXT, OFFSETS, compress.ATTENTION] if decode else [])]
        self.control = Control(
            recipe,
            config,
            self.prompts,
            keys,
            budget=budget,
            step_budget=step_budget,
            offers=offers,
            columns=columns,
            wording=wording,
        )
        _require_room(max(map(len, longest_asked(self.control, self.prompts))) + config.max_tokens, positions)
        self.evaluate = evaluate
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=config.weight_decay
        )
        self.reference: Llama | None = None
        if config.kl > 0:
            self.reference = Llama(self.model.config)
            self.reference.load_state_dict(self.model.state_dict())
            self.reference.to(self.model.device).requires_grad_(False)
        own = {
            **asdict(config),
            "recipe": recipe.name,
            "parts of the recipe": fingerprint((recipe, recipe.columns())),
            "tokens": budget,
            "tokens of a step": step_budget,
            "version of the algorithm": ALGORITHM,
        }
        self.identity: dict[str, Any] = {**own, **(identity or {})}
        given = {name: np.asarray(values).tolist() for name, values in self.control.columns.items()}
        self.identity.setdefault("problems", digest(json.dumps([list(keys), self.prompts, given]).encode()))
        if recipe.variant and wording:
            said = [list(wording.texts), [list(steps) for steps in wording.solutions or ()]]
            self.identity["texts of the problems"] = digest(json.dumps(said).encode())
        self.identity.setdefault("weights of the model", weights_of(self.model))

    @property
    def progress(self) -> Progress:
        """What the run has done so far."""
        return self.control.progress

    # -- one step -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Refuse a budget that buys no rollout in the first step, before anything is sampled.

        Raises:
            BudgetExceeded: says how many tokens would do.
        """
        self.control.check()

    def step(self) -> bool:
        """Do one step; False when the budget buys no rollout any more."""
        clock, control = self.progress.phases, self.control
        begin = time.perf_counter()
        collected = self._collect()
        if collected is None:
            if self.progress.step == 0:
                control.check()
            return False
        rollouts, view = collected
        with phase(clock, "allocation"):
            update = control.learn(rollouts, view)
        with phase(clock, "training"):
            self._update(update)
        control.done(view, update)
        self.progress.seconds += time.perf_counter() - begin
        return True

    def _collect(self) -> tuple[Rollouts, View] | None:
        """Sample and verify the step's rollouts, round by round; None when the budget buys none."""
        clock = self.progress.phases
        with phase(clock, "allocation"):
            step = self.control.begin()
        while True:
            with phase(clock, "allocation"):
                work = step.next()
            if work is None:
                return step.collected()
            half = torch.autocast(self.model.device.type, torch.bfloat16, enabled=self._half)
            with phase(clock, "sampling"), half:
                keys, prompts, units = work.requests(self.prompts)
                part, _ = sample(
                    self.model,
                    keys,
                    prompts,
                    units,
                    max_tokens=work.max_tokens,
                    markers=self.markers,
                    seed=work.seed,
                    temperature=work.temperature,
                    steer=timed(work.steer, clock) if work.steer else None,
                    budget=work.budget,
                    compiled=None if self.dtype == torch.float32 else False,
                )
            part = work.whole(part)
            if work.asked is not None and work.asked.learnt:
                with phase(clock, "training"), half:
                    part = of_heads(self.model, part, work.temperature, self.markers)
            if ENTROPY in self.recipe.needs:
                with phase(clock, "training"), half:
                    part = replace(part, entropy=entropies(self.model, part, work.temperature))
            with phase(clock, "verifying"):
                rows = [part.tokens[i, : part.length[i]].tolist() for i in range(len(part))]
                part = part.scored(self.score(work.picked[part.group], rows))
                if self.decode is not None:
                    said = written(self.recipe.needs, self.decode, rows, part.tokens.shape[1])
                    part = replace(part, more={**part.more, **said})
            if compress.ATTENTION in self.recipe.needs:
                assert self.decode is not None
                with phase(clock, "training"), half:
                    part = compress.read(part, self.decode, partial(attention_of_last, self.model), self.probe)
            step.add(part)

    def _update(self, update: Update) -> None:
        """``minibatches`` optimiser steps on the rows that carry gradient."""
        c, rollouts, rows = self.config, update.rollouts, update.rows
        if not len(rows) and not any(map(len, update.beside)):
            return
        for group in self.optimiser.param_groups:
            group["lr"] = c.lr * update.lr_scale
        parts = np.array_split(np.arange(len(rows)), max(min(c.minibatches, len(rows)), 1))
        self._kl, losses = np.full(len(rollouts), np.nan), np.zeros(len(update.beside))
        for number, part in enumerate(parts):
            self.optimiser.zero_grad(set_to_none=True)
            lengths = rollouts.length[rows[part]] + np.array(
                [len(prompt) for prompt in rollouts.prompts_of(rows[part])]
            )
            part = part[np.argsort(lengths, kind="stable")]
            lengths = np.sort(lengths)
            first = 0
            while first < len(part):
                last = first + 1
                while last < len(part) and (last + 1 - first) * lengths[last] <= MICRO:
                    last += 1
                micro = part[first:last]
                self._backward(update, rows[micro], update.scale[micro] / len(part))
                first = last
            for i, (term, reading) in enumerate(zip(self.recipe.beside, update.beside, strict=True)):
                own = np.array_split(np.arange(len(reading)), len(parts))[number]
                with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self._half):
                    losses[i] += backward_beside(self.model, term, reading.take(own)) * len(own) / max(len(reading), 1)
            norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.max_grad_norm))
            if not math.isfinite(norm):
                advice = f"Lower --lr ({c.lr:g}), look at the rewards, or compute in --dtype float32"
                raise Diverged(self.progress.step + 1, f"the norm of the gradient is {norm}", advice)
            self.optimiser.step()
        names = [term.name for term in self.recipe.beside]
        self.control.measured(update, self._kl, dict(zip(names, losses.tolist(), strict=True)))

    def _backward(self, update: Update, rows: I64, scale: F64) -> None:
        """The gradient of some rows; ``scale`` [k] or [k, t] is the weight of their tokens."""
        c, device, loss, rollouts = self.config, self.model.device, self.recipe.loss, update.rollouts
        prompts = rollouts.prompts_of(rows)
        tokens, length = rollouts.tokens[rows], rollouts.length[rows]
        with torch.autocast(device.type, torch.bfloat16, enabled=self._half):
            logprob, mask = token_logprobs(self.model, prompts, tokens, length, update.temperature)
        sampled = torch.from_numpy(rollouts.sampled[rows])[mask].to(device)
        # what was not sampled has no old probability, and no weight: a ratio of 1 keeps it out of every sum
        old = torch.where(sampled, torch.from_numpy(rollouts.logprob[rows])[mask].to(device), logprob.detach())
        row = torch.from_numpy(np.repeat(np.arange(len(rows)), length)).to(device)

        def of_tokens(values: F64) -> Tensor:
            return torch.from_numpy(per_token(values.astype(np.float32), tokens)[mask.numpy()]).to(device)

        w = of_tokens(scale) * sampled
        objective = loss.ratio(Tokens(logprob, old, of_tokens(update.advantage[rows]), row, sampled))
        if self.reference is not None:
            with torch.no_grad():
                base, _ = token_logprobs(self.reference, prompts, tokens, length, update.temperature)
            kl = loss.kl(logprob, base)
            of_rows = np.bincount(row.cpu().numpy(), kl.detach().double().cpu().numpy(), len(rows))
            self._kl[rows] = of_rows / np.maximum(length, 1)
            factor = 1.0 if update.kl_scale is None else of_tokens(update.kl_scale[rows])
            objective = objective - c.kl * factor * kl
        (-(objective * w).sum()).backward()  # type: ignore[no-untyped-call]

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
        while p.step < c.steps and (self.control.budget is None or p.used < self.control.budget or p.step == 0):
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
        checkpoint.save(
            path,
            {
                "identity": json.dumps(self.identity),
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "reference": self.reference.state_dict() if self.reference else None,
                "control": self.control.state_dict(),
            },
        )

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same run.

        Raises:
            CheckpointError: the file is damaged or of another run; nothing is changed on disk.
        """
        checkpoint.same_run(path, self.identity)
        try:
            content = torch.load(path, map_location=self.model.device, weights_only=True)
            self.model.load_state_dict(content["model"])
            self.optimiser.load_state_dict(content["optimiser"])
            if self.reference is not None:
                self.reference.load_state_dict(content["reference"])
            self.control.load_state_dict(content["control"])
        except Exception as error:
            raise CheckpointError(f"cannot read checkpoint {path} ({error}); delete it to start afresh") from error
