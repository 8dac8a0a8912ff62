"""TRL's ``GRPOTrainer`` under a token budget: one step of a recipe is one generation of TRL."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core.errors import InvalidInput, MissingExtra

try:
    import torch
    from accelerate.utils import gather_object
    from torch import Tensor
    from transformers import TrainerCallback
    from trl import GRPOTrainer
except ImportError as error:
    raise MissingExtra("trl", "trl") from error

from budgeteer.adapters.trl.asking import inputs_of, refuse_unseen, wording_of
from budgeteer.adapters.trl.beside import loss_beside, refuse_beside
from budgeteer.adapters.trl.branching import attended, headed
from budgeteer.adapters.trl.drawn import Blank, Drawn, Ready, completions_of
from budgeteer.adapters.trl.generating import context_of, generated
from budgeteer.adapters.trl.hints import with_solutions
from budgeteer.adapters.trl.measure import measured, reads_logprobs
from budgeteer.adapters.trl.order import keys_of, on_one_process, trl_order
from budgeteer.adapters.trl.prompts import tokenized
from budgeteer.adapters.trl.ratios import own_ratio
from budgeteer.adapters.trl.refusals import (
    refuse_arguments,
    refuse_prompts,
    refuse_recipe,
    refuse_steer,
    refuse_tokenizer,
    refuse_tools,
)
from budgeteer.adapters.trl.replay import batch_of
from budgeteer.adapters.trl.report import report, total_of
from budgeteer.adapters.trl.sampling import Row, Sampling, hinted, rollouts_of, setting
from budgeteer.adapters.trl.scores import checked
from budgeteer.adapters.trl.sharded import refuse_shards, whole
from budgeteer.adapters.trl.states import identity_of, load_state, require_state, save_state
from budgeteer.adapters.trl.trim import WithoutPadding
from budgeteer.adapters.trl.turns import Prepared, talked
from budgeteer.adapters.trl.update import Advantages, filled, loss_tokens, trl_advantages, weighted, without_truncated
from budgeteer.core.plan import F64, I64, Plan
from budgeteer.engine.table import ANSWER
from budgeteer.models.chat import tags_of
from budgeteer.rl import recipes, texts
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.asked import longest_asked
from budgeteer.rl.compress import ATTENTION
from budgeteer.rl.config import TrainConfig, tokens_of
from budgeteer.rl.control import Control
from budgeteer.rl.recipe import ENTROPY, OFFSETS, TEXT, Recipe, View
from budgeteer.rl.reward import ALWAYS
from budgeteer.rl.rollouts import OF_SAMPLER, Rollouts
from budgeteer.rl.step import Round

REWARD = "reward of function {}"
"""Name of the column of rollouts with the rewards of one function."""


class BudgetedGRPOTrainer(WithoutPadding):  # type: ignore[misc, unused-ignore]
    """``trl.GRPOTrainer`` whose rollouts are allotted, steered and learnt from as a recipe says, within a budget.

    Args:
        args: those of ``GRPOTrainer``.
        recipe: a recipe or its name, such as ``"duet"`` or ``"duet:thinned=false"``. With ``"grpo"`` and no budget the
            losses and weights are those of ``GRPOTrainer``.
        budget: most tokens that the run generates, such as ``"2m"``; None = no limit. It is never exceeded, each
            generation has an equal share of what is left, and the run stops when it buys no rollout any more.
        step_budget: most tokens of one generation (``generation_batch_size`` rollouts in TRL).
        verifier: name of the reward function that says how right a completion is, for allocators and selection; None =
            the weighted sum of all functions. Outside [0, 1] the nearer end counts; a row that it gives None is wasted.
        answer: regular expression of a complete answer, for recipes that stop at it.
        close: text that closes the thinking before the answer, ``""`` = there is none; None = as in the chat template.
        kwargs: those of ``GRPOTrainer``.

    Raises:
        InvalidInput: something that this trainer does not offer, or a prompt that does not fit into the model.
        BudgetExceeded: a budget that buys no rollout in the first step.
    """

    def __init__(
        self,
        *args: Any,
        recipe: str | Recipe = "grpo",
        budget: int | str | None = None,
        step_budget: int | str | None = None,
        verifier: str | None = None,
        answer: str = ANSWER,
        close: str | None = None,
        **kwargs: Any,
    ) -> None:
        given = inspect.signature(GRPOTrainer.__init__).bind(self, *args, **kwargs).arguments
        refuse_arguments(given, recipe, answer, close)
        self._ready: Ready | None = None
        self.preparing = False
        super().__init__(*args, **kwargs)
        refuse_shards(self)
        refuse_tokenizer(self._tokenizer)
        chosen = recipes.get(recipe) if isinstance(recipe, str) else recipe
        self.trims = (chosen.name, budget, step_budget) != ("grpo", None, None)
        refuse_recipe(chosen, self.args)
        refuse_beside(chosen, self.accelerator.num_processes)
        if self.tools or self.environment_factories:
            refuse_tools(chosen, self.accelerator.num_processes)
        if verifier is not None and verifier not in self.reward_func_names:
            raise InvalidInput(f"verifier={verifier!r}; the reward functions are {', '.join(self.reward_func_names)}")
        self._verifier = None if verifier is None else self.reward_func_names.index(verifier)
        self._size = self.args.generation_batch_size // self.num_generations
        self._rows = self.train_dataset
        if self.args.remove_unused_columns:
            self._rows = self._remove_unused_columns(self._rows, description="training")
        self._ids = tokenized(self, self._rows)
        if len(self._ids) < self._size:
            raise InvalidInput(
                f"{len(self._ids)} prompts, {self._size} a generation asked; lower generation_batch_size or raise "
                "num_generations (with `budgeteer train`, lower --prompts)"
            )
        self._wording = wording_of(self, chosen)
        self._probe = self._wording.write([chosen.branch.text])[0] if self._wording and chosen.branch else []
        longest = self.max_completion_length + len(self._probe) + getattr(chosen.branch, "answer", 0)
        keys = self._rows["key"] if "key" in self._rows.column_names else None
        refuse_prompts(with_solutions(self._wording, self._ids), longest, context_of(self), keys)
        tags = tags_of(str(self._tokenizer.chat_template or ""))
        close = (tags.close if tags else "") if close is None else close
        vocabulary = self.accelerator.unwrap_model(self.model).get_input_embeddings().num_embeddings
        self._sampling = Sampling(self._tokenizer, vocabulary, self.eos_token_ids, close, answer, self.temperature)
        self.spending = self._control(chosen, tokens_of("budget", budget), tokens_of("step_budget", step_budget))
        refuse_unseen(self.spending, self._ids)
        refuse_prompts(longest_asked(self.spending, self._ids), longest, context_of(self), keys)
        self.add_callback(_Stop(self))

    # -- what is known before the first step ----------------------------------------------------------------------

    def _control(self, recipe: Recipe, budget: int | None, step_budget: int | None) -> Control:
        a, every = self.args, self.every
        epoch = len(self._rows) // self._size * every  # micro-batches
        steps = a.max_steps * a.gradient_accumulation_steps if a.max_steps > 0 else a.num_train_epochs * epoch
        config = TrainConfig(
            steps=math.ceil(steps / every), prompts=self._size, group=self.num_generations, seed=a.seed,
            max_tokens=self.max_completion_length, temperature=self.temperature, eval_every=0,
        )  # fmt: skip
        keys = keys_of(self._rows)
        self._own_rewards = recipe.reward is not None
        parts = replace(recipe, allocator=on_one_process(recipe.allocator))
        if recipe.stream is None:
            parts = replace(parts, stream=trl_order(self._size, self.shuffle_dataset))
        if recipe.advantage is grpo_advantage:
            parts = replace(parts, advantage=self._advantage)
        tokens: dict[str, Any] = {"budget": budget, "step_budget": step_budget, "bounded": True}
        asked = {source.name for source in recipe.columns()} - {*ALWAYS, *OF_SAMPLER, ENTROPY, TEXT, OFFSETS}
        columns = {name: list(self._rows[name]) for name in asked & {*self._rows.column_names}}
        offers = [ENTROPY, TEXT, OFFSETS, ATTENTION]
        problems: list[Any] = [keys, self._ids]
        if self._wording is not None:
            problems.append(self._wording.solutions)
        made = Control(parts, config, self._ids, keys, offers=offers, columns=columns, wording=self._wording, **tokens)
        self._recipe = recipe
        self.identity = identity_of(self, recipe, budget, step_budget, problems)
        _, _, items = made.candidates()
        refuse_steer(recipe, made.view(items, Plan(items.keys, np.zeros(len(items), np.int64), 0.0)), self.use_vllm)
        if budget is not None or step_budget is not None:
            made.check()
        return made

    # -- one step -------------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        if not self.model.training:
            with whole(self):
                return super()._generate_and_score_completions(inputs)
        step, drawn = self.spending.begin(), Drawn()
        while (work := step.next()) is not None:
            into = Drawn() if work.watched else drawn  # TRL sees nothing of what nothing is learnt from
            if (part := self._round(work, into)) is None:
                break
            step.add(part, sum(row.lost for row in into.rows[-len(part) :]))
        collected = step.collected()
        if collected is None:  # in the middle of an optimiser step: the next one is not begun
            return self._batch(drawn, np.zeros(0, np.int64), np.zeros(0), 0)
        rollouts, view = collected
        update = self.spending.learn(rollouts, view, sum(row.lost for row in drawn.rows))
        chosen = weighted(update, self._recipe, self.loss_type, self._multiple())
        if self.mask_truncated_completions:
            update = without_truncated(update)
        tokens = loss_tokens(update.rollouts, chosen, self.mask_truncated_completions)
        batch = batch_of(self, drawn, update, chosen, tokens)
        self.spending.done(view, update)
        no_spread = float(self._advantages(rollouts).no_spread.float().mean())
        report(self, drawn, rollouts, update, no_spread)
        return batch

    def _multiple(self) -> int:
        return int(self.accelerator.num_processes * self.args.steps_per_generation)

    def _round(self, work: Round, drawn: Drawn) -> Rollouts | None:
        """Generate and score a round; None: the budget pays no token of it."""
        _, asked, units = work.requests(self._ids)
        group = np.repeat(np.arange(len(units)), units)
        if self.tools or self.environment_factories:
            return self._talked(work, group, drawn)
        with whole(self):
            rows = self._generated(work, group, [list(asked[i]) for i in group.tolist()])
        if not rows:
            return None
        recipe = self._recipe
        read = {"closed", "answered"} & {column.name for column in recipe.columns()} or recipe.branch or recipe.carry
        if read and work.steer is None:
            rows = self._sampling.marked(rows)
        part = rollouts_of(rows, work, group, self._ids)
        logprobs = reads_logprobs(recipe, self.beta) and (work.steer is None or self.use_vllm)
        if logprobs or ENTROPY in self._recipe.needs:
            part = measured(self, part, logprobs)
        part, rows = headed(self, self._sampling, part, hinted(rows, work, group), work)
        requests, gives = group[[row.number for row in rows]].tolist(), getattr(self._recipe.variant, "gives", ())
        inputs, prompt_ids = inputs_of(self._rows, work, requests, part, gives)
        ids = [row.tokens for row in rows]
        completions = completions_of(self.processing_class, inputs[0]["prompt"], prompt_ids, ids)
        part = self._scored(part, inputs, prompt_ids, rows, completions, drawn)
        return attended(self, part, self._probe) if ATTENTION in self._recipe.needs else part

    def _generated(self, work: Round, group: I64, prompts: list[list[int]]) -> list[Row]:
        """The rows of a round that were started, of all processes.

        Args:
            work: the round.
            group: [n] of its rows, indices of what is asked.
            prompts: [n] token ids.
        """
        return generated(self, self._sampling, work, group, prompts)

    def _talked(self, work: Round, group: I64, drawn: Drawn) -> Rollouts | None:
        """The same with tools, whose results stand between the turns of a rollout."""
        numbers = np.arange(len(group))[: work.budget]
        if not len(numbers):
            return None
        inputs = [dict(self._rows[i]) for i in work.picked[group[numbers]].tolist()]
        made = talked(self, self._sampling, inputs, work.max_tokens[group[numbers]], numbers, work.budget)
        drawn.calls, drawn.failures = drawn.calls + made.calls, drawn.failures + made.failures
        inputs = [{**row, "prompt": prompt} for row, prompt in zip(inputs, made.prompts, strict=True)]
        part = rollouts_of(made.rows, work, group, self._ids)
        return self._scored(part, inputs, made.prompt_ids, made.rows, made.completions, drawn)

    def _scored(
        self,
        part: Rollouts,
        inputs: list[dict[str, Any]],
        prompt_ids: list[list[int]],
        rows: list[Row],
        completions: list[Any],
        drawn: Drawn,
    ) -> Rollouts:
        """The rollouts with their rewards; each process scores an equal number of rows."""
        n, mine, ids = len(part), self.accelerator.process_index, [row.tokens for row in rows]
        each = -(-n // self.accelerator.num_processes)
        own = np.minimum(np.arange(mine * each, (mine + 1) * each), n - 1).tolist()
        written, tokens = [completions[i] for i in own], [ids[i] for i in own]
        prompts, examples = [inputs[i]["prompt"] for i in own], [inputs[i] for i in own]
        rewards = self._calculate_rewards(examples, prompts, written, tokens)[:n]
        if torch.isinf(rewards).any():
            name = self.reward_func_names[int(torch.isinf(rewards).any(0).nonzero()[0])]
            raise InvalidInput(f"the reward function {name!r} returned an infinite reward; return a number or None")
        names = sorted(set(gather_object(list(self._pending_extra_logs))))
        logged = [gather_object(self._pending_extra_logs.get(name, [None] * each))[:n] for name in names]
        self._pending_extra_logs.clear()
        drawn.add(inputs, prompt_ids, rows, completions, rewards, dict(zip(names, logged, strict=True)))
        total = total_of(rewards, self.reward_weights)
        verified = total if self._verifier is None else rewards[:, self._verifier]
        columns = {REWARD.format(i): rewards[:, i].cpu().numpy() for i in range(rewards.shape[1])}
        decode = partial(self.processing_class.batch_decode, skip_special_tokens=True)
        columns |= texts.written(self._recipe.needs, decode, ids, part.tokens.shape[1])
        part = part.scored(np.clip(verified.cpu().numpy().astype(np.float64), 0, 1))
        return replace(part, reward=total.cpu().numpy().astype(np.float64), more={**part.more, **columns})

    def _advantage(self, rollouts: Rollouts, view: View) -> F64:
        """[n] TRL's advantages, as its configuration says."""
        return np.asarray(self._advantages(rollouts).value.cpu().numpy(), np.float64)

    def _advantages(self, rollouts: Rollouts) -> Advantages:
        if self._own_rewards:
            columns, weights = [rollouts.reward], torch.ones(1)
        else:
            columns = [rollouts.more[REWARD.format(i)] for i in range(len(self.reward_funcs))]
            weights = self.reward_weights
        rewards = torch.from_numpy(np.stack(columns, 1).astype(np.float32)).to(self.accelerator.device)
        return trl_advantages(rewards, weights, rollouts.group, self.scale_rewards, self.multi_objective_aggregation)

    # -- what TRL trains on ---------------------------------------------------------------------------------------

    def _batch(self, drawn: Drawn, rows: I64, advantage: F64, loss_tokens: int) -> dict[str, Any]:
        """TRL's batch of some of the drawn rows, filled up with rows that carry nothing.

        Args:
            drawn: all rollouts of the step.
            rows: [k] of what was drawn.
            advantage: [k] or [k, t].
            loss_tokens: that losses which are means over tokens are means over.
        """
        count = filled(len(rows), self._multiple())
        each = count // self.accelerator.num_processes
        own = slice(self.accelerator.process_index * each, (self.accelerator.process_index + 1) * each)
        device = self.accelerator.device
        rewards = torch.cat([torch.zeros(0, len(self.reward_funcs), device=device), *drawn.rewards])
        blank = Blank(dict(self._rows[0]), self._ids[0], self.eos_token_ids[0])
        self._ready = ready = drawn.ready(rows, count, own, blank, rewards, self.use_vllm)
        try:
            again: dict[str, Any] = {"tools": [], "environment_factories": None, "environments": None}  # they are done
            with setting(self, num_generations=1, mask_truncated_completions=False, **again):
                batch: dict[str, Any] = super()._generate_and_score_completions(ready.inputs)
        finally:
            self._ready = None
        hidden = ready.hidden(self.mask_truncated_completions)
        batch["completion_mask"][torch.tensor(hidden, device=device)] = 0
        batch["num_items_in_batch"] = torch.tensor(loss_tokens, device=device)
        width = batch["completion_ids"].shape[1]
        full = np.zeros((count, *advantage.shape[1:]))
        full[: len(rows)] = advantage
        if full.ndim == 2:
            full = np.pad(full[:, :width], ((0, 0), (0, max(width - full.shape[1], 0))))
        batch["advantages"] = torch.from_numpy(full[own].astype(np.float32)).to(device)
        return batch

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        if self.preparing:
            raise Prepared(prompts)
        return super()._generate(prompts) if self._ready is None else self._ready.generated

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        if self._ready is not None:
            return self._ready.rewards
        functions = [checked(*each) for each in zip(self.reward_funcs, self.reward_func_names, strict=True)]
        with setting(self, reward_funcs=functions):
            rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return rewards

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        if not self.model.training:
            return super()._compute_loss(model, inputs)
        with own_ratio(self, inputs) as given:
            loss = super()._compute_loss(model, given)
        return loss_beside(self, model, inputs, loss)

    # -- what is logged -------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log what TRL does, and the run's tokens so far: planned, used, trained, wasted, and left of the budget."""
        if self.model.training:
            p, left = self.spending.progress, self.spending.left()
            now = {"planned": p.planned, "used": p.used, "trained": p.trained, "wasted": p.wasted}
            for name, value in (now if left is None else {**now, "left": left}).items():
                self._metrics["train"][f"budget/{name}"] = [value]
        super().log(logs, start_time)

    # -- the end of the budget, checkpoints -----------------------------------------------------------------------

    @property
    def every(self) -> int:
        """Micro-batches that learn from one generation."""
        return int(self.args.steps_per_generation * self.num_iterations)

    def exhausted(self) -> bool:
        """Whether the next generation is due and the budget buys none."""
        due = self._step % self.every == 0
        work = self.spending.begin().next() if due else None
        return due and (work is None or work.budget == 0)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # before TRL's files: a checkpoint that was written to its end has this one, too
        save_state(self, Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}")
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if Path(resume_from_checkpoint).is_dir():  # otherwise TRL says that it is not there
            require_state(self, Path(resume_from_checkpoint))
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint_folder: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint_folder)
        if checkpoint_folder is not None:
            load_state(self, Path(checkpoint_folder))


class _Stop(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Ends the training when the budget buys no rollout any more."""

    def __init__(self, trainer: BudgetedGRPOTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if self.trainer.exhausted():
            control.should_training_stop = True
        return control
