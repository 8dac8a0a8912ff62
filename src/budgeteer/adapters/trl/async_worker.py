"""Rollouts for TRL's experimental ``AsyncGRPOTrainer`` as a recipe allots them, within a budget.

    worker = BudgetedRolloutWorker(data, reward, tokenizer, VLLMServer("http://localhost:8000", "qwen3"), recipe="duet",
                                   budget="2m", steps=200, prompts=8, num_generations=8, max_tokens=1024)
    trainer = AsyncGRPOTrainer("qwen3", reward, args, data, rollout_worker=worker, callbacks=[worker.callback()])

The worker is a thread of the trainer's first process. A step of its recipe is ``prompts`` prompts: each group is closed
when it has the number of rollouts that the allocator gave it, the step's rollouts are weighed as in
:class:`budgeteer.adapters.trl.BudgetedGRPOTrainer`, and the next step begins while the trainer learns from them. It
runs ahead of the trainer by one step at most.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from transformers import TrainerCallback
from trl.data_utils import is_conversational
from trl.experimental.async_grpo.async_rollout_worker import RolloutSample

from budgeteer.adapters.trl.async_end import End
from budgeteer.adapters.trl.drawn import completions_of
from budgeteer.adapters.trl.order import keys_of
from budgeteer.adapters.trl.prompts import prompts_of
from budgeteer.adapters.trl.refusals import (
    refuse_data,
    refuse_for_worker,
    refuse_functions,
    refuse_own,
    refuse_prompts,
    refuse_recipe,
    refuse_steer,
    refuse_tokenizer,
)
from budgeteer.adapters.trl.sampling import Row, Sampling, rollouts_of
from budgeteer.adapters.trl.scores import require_scores
from budgeteer.adapters.trl.update import weighted
from budgeteer.adapters.trl.vllm_server import Completed, VLLMServer
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, Plan, whole
from budgeteer.engine.table import ANSWER
from budgeteer.models.chat import tags_of
from budgeteer.rl import recipes
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.config import TrainConfig, tokens_of
from budgeteer.rl.control import Control
from budgeteer.rl.identity import digest, fingerprint
from budgeteer.rl.recipe import TEXT, Recipe, View
from budgeteer.rl.reward import ALWAYS
from budgeteer.rl.rollouts import OF_SAMPLER, Rollouts
from budgeteer.rl.step import Round

__all__ = ["BudgetedRolloutWorker", "Completed", "NoWeightTransfer", "VLLMServer"]

_SETTINGS = SimpleNamespace(
    loss_type="dapo", scale_rewards="group", multi_objective_aggregation="sum_then_normalize", top_p=1.0, top_k=0,
    min_p=None, repetition_penalty=1.0, generation_kwargs=None, use_vllm=False,
)  # fmt: skip
"""What ``AsyncGRPOTrainer`` computes, in the names of ``GRPOConfig``: a mean over tokens, groups scaled."""


class NoWeightTransfer:
    """``weight_transfer`` of ``AsyncGRPOTrainer`` that moves no weights, for tests."""

    def init_weight_transfer(self) -> None: ...

    def pause(self) -> None: ...

    def send_weights(self, iterator: Iterator[tuple[str, Any]]) -> None: ...

    def resume(self) -> None: ...

    def destroy(self) -> None: ...


class BudgetedRolloutWorker:
    """``rollout_worker`` of ``AsyncGRPOTrainer``.

    Args:
        dataset: with a column ``prompt``, texts or conversations; perhaps with ``key``.
        reward_funcs: as TRL's; the sum of their rewards counts, in [0, 1] for allocators.
        tokenizer: of the model.
        complete: makes a request; called from several threads.
        recipe: a recipe or its name.
        budget: most tokens that are generated, such as ``"2m"``; None = no limit.
        steps: of the recipe, among which the budget is spread.
        prompts: of a step.
        num_generations: rollouts of a prompt that the uniform allocator gives.
        max_tokens: of a rollout.
        ends: ids of the tokens that end a sequence; None = the tokenizer's one.
        temperature: of ``complete``.
        seed: of the order of prompts and the recipe's own draws.
        at_once: requests at once.
        answer, close: as in :class:`budgeteer.adapters.trl.BudgetedGRPOTrainer`.

    Attributes:
        rollout_buffer, metrics_queue: what the trainer reads.
        spending: the decisions and their state.
        identity: of the run, which its checkpoints have.
        ended: set when there will be no more rollouts.
        error: what stopped it; None = nothing has.

    Raises:
        InvalidInput: something that the trainer cannot do.
        BudgetExceeded: a budget that buys no rollout in the first step.
    """

    def __init__(
        self,
        dataset: Any,
        reward_funcs: Callable[..., Any] | Sequence[Callable[..., Any]],
        tokenizer: Any,
        complete: Callable[[Sequence[int], int], Completed],
        *,
        recipe: str | Recipe = "grpo",
        budget: int | str | None = None,
        steps: int,
        prompts: int,
        num_generations: int,
        max_tokens: int,
        ends: Sequence[int] | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        at_once: int = 64,
        answer: str = ANSWER,
        close: str | None = None,
    ) -> None:
        refuse_own(recipe, answer, close)
        whole("num_generations", num_generations, 2)  # as TRL: one rollout has nothing to be compared with
        self._functions = [reward_funcs] if callable(reward_funcs) else list(reward_funcs)
        refuse_functions(self._functions)
        self._names = [getattr(function, "__name__", type(function).__name__) for function in self._functions]
        refuse_data(dataset)
        if ends is None:
            refuse_tokenizer(tokenizer)
        asked = prompts_of(dataset, tokenizer)
        if len(dataset) < prompts:
            raise InvalidInput(f"{len(dataset)} prompts in the data set, {prompts} a step asked; lower prompts")
        self._rows, self._tokenizer, self._complete, self._at_once = dataset, tokenizer, complete, at_once
        self._ids = [self._encoded(prompt) for prompt in asked]
        refuse_prompts(self._ids, max_tokens, None)
        tags = tags_of(str(getattr(tokenizer, "chat_template", None) or ""))
        close = (tags.close if tags else "") if close is None else close
        ends = [int(tokenizer.eos_token_id)] if ends is None else list(ends)
        self._sampling = Sampling(tokenizer, len(tokenizer), ends, close, answer, temperature)
        self.spending = self._control(
            recipes.get(recipe) if isinstance(recipe, str) else recipe, tokens_of("budget", budget),
            TrainConfig(
                steps=steps, prompts=prompts, group=num_generations, max_tokens=max_tokens, temperature=temperature,
                seed=seed, eval_every=0,
            ),
        )  # fmt: skip
        self.rollout_buffer: queue.Queue[RolloutSample] = queue.Queue(prompts * num_generations)
        self.metrics_queue: queue.Queue[dict[str, float]] = queue.Queue()
        self.ended, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self._version = 0
        self._lock = threading.Lock()  # held while a step is learnt from

    def _encoded(self, prompt: Any) -> list[int]:
        if is_conversational({"prompt": prompt}):
            ids = self._tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        else:
            ids = self._tokenizer(prompt)["input_ids"]
        return list(map(int, ids))

    def _control(self, recipe: Recipe, budget: int | None, config: TrainConfig) -> Control:
        refuse_for_worker(recipe)
        refuse_recipe(recipe, _SETTINGS)
        keys = keys_of(self._rows)
        given = recipe
        if recipe.advantage is grpo_advantage:
            recipe = replace(recipe, advantage=_advantage)
        asked = {source.name for source in recipe.columns()} - {*ALWAYS, *OF_SAMPLER, TEXT}
        columns = {name: list(self._rows[name]) for name in asked & {*self._rows.column_names}}
        made = Control(recipe, config, self._ids, keys, budget=budget, offers=[TEXT], columns=columns, bounded=True)
        self.identity = {
            "recipe": recipe.name,
            "parts of the recipe": fingerprint((given, given.columns())),
            "tokens": budget,
            "prompts of a step": config.prompts,
            "rollouts of a prompt": config.group,
            "problems": digest(json.dumps([keys, self._ids]).encode()),
        }
        _, _, items = made.candidates()
        refuse_steer(recipe, made.view(items, Plan(items.keys, np.zeros(len(items), np.int64), 0.0)), True)
        if budget is not None:
            made.check()
        return made

    # -- what the trainer calls -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to generate.

        Raises:
            InvalidInput: a prompt that leaves no room for ``max_tokens`` in the context of the server.
        """
        if isinstance(self._complete, VLLMServer):
            refuse_prompts(self._ids, self.spending.config.max_tokens, self._complete.context())
        self._thread = threading.Thread(target=self._run, name="budgeteer-rollouts", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Generate nothing more; requests that run are waited for, those that wait are not sent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def update_model_version(self, model_version: int) -> None:
        """Which weights rollouts are made with from now on."""
        self._version = int(model_version)

    def check_health(self, stale_after_s: float) -> None:
        """Raise what stopped the worker, if something has.

        Args:
            stale_after_s: is not looked at: a rollout or its reward may take longer. A server that hangs shows by the
                time-out of a request.

        Raises:
            RuntimeError: a fault, or no more rollouts although the trainer waits for some.
        """
        if self.error is not None:
            raise RuntimeError(f"the rollout worker failed: {self.error}") from self.error
        if self.ended.is_set() and self.rollout_buffer.empty():
            raise RuntimeError(
                f"there are no more rollouts ({self.spending.progress.used:,} tokens used), and the trainer waits for "
                "some: give it worker.callback(), which ends the training; if it has that, the budget did not pay for "
                "its first optimiser step and the micro-batch that it fetches ahead: raise it, or lower "
                "gradient_accumulation_steps"
            )

    def state_dict(self) -> dict[str, str]:
        """The state after the last step that was learnt from: whose run it is, the recipe's parts, the bill."""
        with self._lock:
            return {"identity": json.dumps(self.identity), **self.spending.state_dict()}

    def callback(self) -> TrainerCallback:
        """Ends the training when there are no more rollouts for an optimiser step, and keeps the state of the recipe
        and the bill in its checkpoints."""
        return End(self)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with ThreadPoolExecutor(self._at_once) as pool:
                while not self._stop.is_set() and self.spending.progress.step < self.spending.config.steps:
                    if not self._step(pool):
                        break
        except BaseException as error:  # told to the trainer, which raises it
            self.error = error
        finally:
            self.ended.set()

    def _step(self, pool: ThreadPoolExecutor) -> bool:
        """Generate, score and hand over one step of the recipe; False: the budget buys none."""
        control, version = self.spending, self._version
        step, rewards = control.begin(), []
        told, drawn = list[Any](), list[Row]()
        while (work := step.next()) is not None:
            units = work.view.plan.units
            group = np.repeat(np.arange(len(units)), units)
            rows = self._generated(pool, work, group)
            if self._stop.is_set():
                return False
            if not rows:
                break
            part = rollouts_of(rows, work, group, self._ids)
            part, scores, written = self._scored(part, work.picked[part.group])
            if not work.watched:
                rewards.append(scores)
                told, drawn = told + written, drawn + rows
            step.add(part, sum(row.lost for row in rows))
        if (collected := step.collected()) is None:
            return False
        rollouts, view = collected
        with self._lock:
            update = control.learn(rollouts, view, sum(row.lost for row in drawn))
            if update.advantage.ndim == 2:
                raise InvalidInput(
                    f"recipe {control.recipe.name!r} has an advantage for each token; here a rollout has one"
                )
            control.done(view, update)
        chosen = weighted(update, control.recipe, "dapo", 1)
        self._hand_over(rollouts, update.given[chosen.rows], chosen.advantage, np.concatenate(rewards), told, version)
        return True

    def _generated(self, pool: ThreadPoolExecutor, work: Round, group: I64) -> list[Row]:
        numbers = np.arange(len(group))[: work.budget]
        if not len(numbers):
            return []
        prompts = [self._ids[i] for i in work.picked[group[numbers]].tolist()]
        slices = self._sampling.slices(prompts, work, group, numbers, work.budget)
        while (wave := slices.next()) is not None:
            asked = [pool.submit(self._complete, *each) for each in zip(wave.prompts, wave.most.tolist(), strict=True)]
            try:
                running = set(asked)
                while running:
                    done, running = wait(running, timeout=0.1, return_when=FIRST_EXCEPTION)
                    for each in done:
                        each.result()  # raises what it raised
                    if self._stop.is_set():
                        return []
            finally:
                for each in asked:
                    each.cancel()
            made = [each.result() for each in asked]
            slices.add(wave, *([getattr(each, name) for each in made] for name in Completed._fields))
        return self._sampling.rows(slices, numbers, [])

    def _scored(self, part: Rollouts, index: I64) -> tuple[Rollouts, F64, list[tuple[Any, Any]]]:
        """The rollouts with their rewards, [n, f] of each function, and (prompt, completion) of each."""
        inputs = [self._rows[i] for i in index.tolist()]
        ids = [row[:n].tolist() for row, n in zip(part.tokens, part.length, strict=True)]
        prompts = [each["prompt"] for each in inputs]
        written = completions_of(self._tokenizer, prompts[0], [self._ids[i] for i in index.tolist()], ids)
        columns = {
            name: [each[name] for each in inputs]
            for name in self._rows.column_names
            if name not in ("prompt", "completion", "completion_ids")
        }
        given = [
            require_scores(
                function(prompts=prompts, completions=written, completion_ids=ids, **columns), name, len(written)
            )
            for function, name in zip(self._functions, self._names, strict=True)
        ]
        rewards = np.array([[np.nan if value is None else value for value in own] for own in given], np.float64).T
        if np.isinf(rewards).any():
            raise InvalidInput("a reward function returned an infinite reward; return a number or None")
        total = np.where(np.isnan(rewards).all(1), np.nan, np.nansum(rewards, 1))
        texts = np.array([*self._tokenizer.batch_decode(ids, skip_special_tokens=True), ""], object)[:-1]
        part = replace(part.scored(np.clip(total, 0, 1)), reward=total, more={TEXT: texts})
        return part, rewards, list(zip(prompts, written, strict=True))

    def _hand_over(
        self, rollouts: Rollouts, rows: I64, advantage: F64, rewards: F64, told: list[tuple[Any, Any]], version: int
    ) -> None:
        """Put the rows that are learnt from where the trainer takes them, as it makes room.

        Raises:
            InvalidInput: the recipe has advantages of tokens.
        """
        if advantage.ndim == 2:
            raise InvalidInput(
                f"recipe {self.spending.recipe.name!r} has an advantage for each token, and AsyncGRPOTrainer takes one "
                "a rollout; choose another recipe, or train with BudgetedGRPOTrainer"
            )
        p, left = self.spending.progress, self.spending.left()
        now = {"planned": p.planned, "used": p.used, "trained": p.trained, "wasted": p.wasted}
        now |= {} if left is None else {"left": left}
        self.metrics_queue.put({f"budget/{name}": float(value) for name, value in now.items()})
        prompts = rollouts.prompts_of(rows)
        for i, prompt, own in zip(rows.tolist(), prompts, advantage.tolist(), strict=True):
            peers = rollouts.reward[rollouts.group == rollouts.group[i]]
            n, first = int(rollouts.length[i]), len(prompt)
            learnt = np.concatenate([np.zeros(first, np.int64), rollouts.sampled[i, :n].astype(np.int64)])
            logprob = np.concatenate([np.zeros(first), np.nan_to_num(rollouts.logprob[i, :n])]).astype(np.float32)
            metrics = {"reward": float(rollouts.reward[i]), "reward_std": float(np.nanstd(peers))}
            metrics |= {f"rewards/{name}": float(x) for name, x in zip(self._names, rewards[i], strict=True)}
            sample = RolloutSample(
                prompt=told[i][0], completion=told[i][1],
                input_ids=np.concatenate([np.array(prompt, np.int64), rollouts.tokens[i, :n]]),
                completion_mask=learnt, old_log_probs=logprob, advantage=own, model_version=version,
                group_id=p.step * len(self._ids) + int(rollouts.group[i]), metrics=metrics, enqueued_at=time.time(),
            )  # fmt: skip
            while not self._stop.is_set():
                try:
                    self.rollout_buffer.put(sample, timeout=0.1)
                    break
                except queue.Full:
                    continue


def _advantage(rollouts: Rollouts, view: View) -> F64:
    """[n] as TRL's own worker computes it: by the population's standard deviation of the group."""
    made = np.zeros(len(rollouts))
    for g in np.unique(rollouts.group):
        mine = rollouts.group == g
        reward = rollouts.reward[mine]
        made[mine] = (reward - reward.mean()) / (reward.std() + 1e-8)
    return made
