"""What a configuration of verl says to budgeteer, and what is refused before anything is generated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from budgeteer.adapters.token_level import ESTIMATORS, LEAST, PREFIX
from budgeteer.adapters.verl.numbers import Settings
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.plan import whole
from budgeteer.rl import recipes
from budgeteer.rl.config import tokens_of
from budgeteer.rl.ratio import Loss
from budgeteer.rl.recipe import NO_IMPORTANCE, Recipe, Schedules
from budgeteer.rl.weight import token_mean

KEYS = ("recipe", "budget", "step_budget", "worst_case", "least", "multiple", "low", "high", "seed")
"""Keys under ``budgeteer`` in the configuration."""


def settings_of(config: Any) -> Settings:
    """What the run is told: the keys under ``budgeteer``, and what they leave open from the trainer's own.

    Args:
        config: of verl, a nested mapping with ``get``.

    Raises:
        InvalidInput: a value that cannot be, or a setting of verl under which numbers of rollouts cannot be chosen.
        UnknownName: a key that does not exist.
    """
    given = dict(config.get("budgeteer") or {})
    for key in given:
        if key not in KEYS:
            raise UnknownName("setting of budgeteer", str(key), KEYS)
    refuse(config)
    recipe = recipes.get(str(given.get("recipe", "grpo")))
    refuse_recipe(recipe)
    rollout = config["actor_rollout_ref"]["rollout"]
    name = str(config["algorithm"]["adv_estimator"]).removeprefix(PREFIX)
    low, high = float(given.get("low", 0.0)), float(given.get("high", 1.0))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidInput(f"budgeteer.low={low} and high={high}; give the rewards of a wrong and a right rollout")
    return Settings(
        recipe,
        steps=steps_of(config),
        group=whole("actor_rollout_ref.rollout.n", rollout["n"], 1),
        cap=whole("actor_rollout_ref.rollout.response_length", rollout["response_length"], 1),
        multiple=whole("budgeteer.multiple", given.get("multiple", multiple_of(config)), 1),
        least=whole("budgeteer.least", given.get("least", LEAST.get(name, 2)), 1),
        budget=tokens_of("budgeteer.budget", given.get("budget")),
        step_budget=tokens_of("budgeteer.step_budget", given.get("step_budget")),
        worst_case=bool(given.get("worst_case", False)),
        low=low,
        high=high,
        seed=whole("budgeteer.seed", given.get("seed", 0)),
    )


def multiple_of(config: Any) -> int:
    """Rows of which verl fills its batch up to a multiple: all processes, and the mini-batches of the actor.

    verl counts the processes that hold different data; all of them are a multiple of those.
    """
    trainer, actor = config["trainer"], config["actor_rollout_ref"]["actor"]
    mini_batch = int(actor["ppo_mini_batch_size"]) * int(config["actor_rollout_ref"]["rollout"]["n"])
    return math.lcm(int(trainer["n_gpus_per_node"]) * int(trainer["nnodes"]), mini_batch)


def steps_of(config: Any) -> int:
    """Steps of the run. verl writes them where the optimiser reads them, once the data set is loaded."""
    known = config["actor_rollout_ref"]["actor"].get("optim") or {}
    for steps in (known.get("total_training_steps"), config["trainer"].get("total_training_steps")):
        if steps is not None and int(steps) > 0:
            return int(steps)
    raise InvalidInput("the number of steps is not known; set trainer.total_training_steps")


def refuse(config: Any) -> None:
    """Refuse settings of verl with which a step's rollouts are not one batch, or nothing could be learnt from them.

    Raises:
        InvalidInput: says what to set instead.
    """
    trainer, algorithm = config["trainer"], config["algorithm"]
    v1 = trainer.get("v1") or {}
    if not trainer.get("use_v1", True) or v1.get("trainer_mode", "sync") != "sync":
        raise InvalidInput(
            "budgeteer splits the rollouts of a step among its prompts, and verl's asynchronous trainers submit one "
            "prompt when another one ends; set trainer.use_v1=true and trainer.v1.trainer_mode=sync"
        )
    if (algorithm.get("filter_groups") or {}).get("enable", False):
        raise InvalidInput(
            "algorithm.filter_groups replaces prompts after their rollouts are made, outside of any plan; set "
            "algorithm.filter_groups.enable=false"
        )
    if (v1.get("sampler") or {}).get("sync_refill_failed_groups", False):
        raise InvalidInput("set trainer.v1.sampler.sync_refill_failed_groups=false: refills are outside of any plan")
    estimators = [PREFIX + name for name in ESTIMATORS]
    if str(algorithm["adv_estimator"]) not in estimators:
        raise InvalidInput(
            f"algorithm.adv_estimator={algorithm['adv_estimator']}; choose one of {', '.join(estimators)}: they are "
            "right for groups of any size, and tell what came of the rollouts"
        )
    refuse_forgetting(trainer)


def refuse_forgetting(trainer: Any) -> None:
    """Refuse checkpoints without our state.

    Args:
        trainer: the part ``trainer`` of the configuration.

    Raises:
        InvalidInput: says what to set.
    """
    if int(trainer.get("save_freq") or -1) > 0 and not trainer.get("checkpoint_callback_class"):
        raise InvalidInput(
            "set trainer.checkpoint_callback_class=budgeteer.adapters.verl.manager.SaveNumbers, or a class of your own "
            "that calls trainer.agent_loop_manager.save(checkpoint_dir): a run that resumes would have forgotten its "
            "prompts and its budget, or the state of its reward"
        )


def refuse_recipe(recipe: Recipe) -> None:
    """Refuse a recipe of which more than allocator, memory, pace and advantage matter.

    Raises:
        InvalidInput: lists the parts that verl decides.
    """
    default = Schedules()
    points = np.linspace(0, 1, 41).tolist()
    moved = [
        name
        for name in ("temperature", "max_tokens", "lr")
        if any(getattr(recipe.schedules, name)(x) != getattr(default, name)(x) for x in points)
    ]
    parts: Mapping[str, bool] = {
        "steer": recipe.steer is not None,
        "select": recipe.select is not None,
        "thin": recipe.thin is not None,
        "reward": recipe.reward is not None,
        "stream": recipe.stream is not None,
        "carry": recipe.carry is not None,
        "replay": recipe.replay is not None,
        "branch": recipe.branch is not None,
        "variant": recipe.variant is not None,
        "importance": recipe.importance is not NO_IMPORTANCE,
        "token_weight": recipe.token_weight is not token_mean,
        "loss": recipe.loss != Loss(),
        "rounds": recipe.rounds > 1,
        "oversample": recipe.oversample > 1,
        **dict.fromkeys(moved, True),
    }
    if more := [name for name, there in parts.items() if there]:
        raise InvalidInput(
            f"recipe {recipe.name!r} has {', '.join(more)}, which verl decides by itself; choose one that only "
            "allocates, such as vip, knapsack or grpo:allocator=neyman, and name loss and advantage in verl's own "
            "settings"
        )
