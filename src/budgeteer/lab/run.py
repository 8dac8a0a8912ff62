"""One run of one recipe, from a specification to an entry of results.json."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, Status
from budgeteer.engine.llama import Llama, save
from budgeteer.lab import pool as pools
from budgeteer.lab.heldout import GREEDY_TEMPERATURE, accuracy, rewards
from budgeteer.lab.results import GREEDY, Run
from budgeteer.lab.runlog import RunLog
from budgeteer.lab.tasks.named import stamp
from budgeteer.models.policy import REASONER, LlamaPolicy, load_policy
from budgeteer.rl import recipes
from budgeteer.rl.asked import Wording
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.device import choose_device
from budgeteer.rl.identity import ALGORITHM, digest, fingerprint
from budgeteer.rl.recipe import ENTROPY, TEXT, Recipe
from budgeteer.rl.recipes.kit import fixed_group
from budgeteer.rl.reward.protocol import ALWAYS
from budgeteer.rl.rollouts import OF_SAMPLER
from budgeteer.rl.step import Progress
from budgeteer.rl.trainer import DecodeFn, Trainer

REFERENCE = "grpo@100%"
"""The run whose tokens are the 100 %: GRPO with ``group`` rollouts for every prompt."""
UNCAPPED = "uncapped"
"""The budget's name in a run without one."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything that decides a run; two equal specs give the same run.

    Attributes:
        recipe, budget: names as on the command line, such as ``"duet"`` and ``"50%"``.
        tokens: hard cap of sampled tokens of the run; None = no cap: the recipe's allocator splits in each step what
            ``config.group`` rollouts a prompt are expected to cost (the reference gives exactly ``config.group``).
        config: of the trainer; its seed is the seed of the run.
        pool: name of the pool, or a JSON-lines file.
        pool_seed: of the problems; a comparison adds the run's seed, so that all recipes of a seed share them.
        train, heldout: problems of each part.
        eval_samples: rollouts of each held-out problem in the final evaluation, which also decodes each greedily, once.
        curve_items: held-out problems of the curve's evaluations, one rollout each.
        model: folder of the starting policy.
    """

    recipe: str
    budget: str
    tokens: int | None
    config: TrainConfig = field(default_factory=TrainConfig)
    pool: str = "real"
    pool_seed: int = 0
    train: int = 512
    heldout: int = 1024
    eval_samples: int = 4
    curve_items: int = 256
    model: str = str(REASONER)

    @property
    def name(self) -> str:
        """Distinct among the runs of a comparison, and fit for a file name."""
        return f"{self.recipe}@{self.budget}-seed{self.config.seed}".replace("/", "_").replace(":", "_")

    def to_json(self) -> str:
        """All settings, sorted by name."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def pool_of_items(self) -> pools.Pool:
        """The problems, made once in a process unless their file changes."""
        return _pool(self.pool, self.pool_seed, self.train, self.heldout, stamp(self.pool))

    def identity(self) -> dict[str, Any]:
        """All settings and contents that decide the result (:mod:`budgeteer.rl.identity`).

        Raises:
            BudgeteerError: the task, the recipe or the device is not to be had.
        """
        settings = {k: v for k, v in asdict(self).items() if k not in ("config", "model")}
        pool, folder, recipe = self.pool_of_items, Path(self.model), recipe_of(self)
        return {
            **asdict(self.config),
            **settings,
            "device": choose_device(self.config.device).type,
            "parts of the recipe": fingerprint((recipe, recipe.columns())),
            "problems": digest(pool.digest().encode()),
            "weights of the model": _content(folder, ("config.json", "model.safetensors")),
            "tokenizer": _content(folder, ("tokenizer.json",)),
            "version of the algorithm": ALGORITHM,
        }


def _content(folder: Path, names: Sequence[str]) -> str:
    """A fingerprint of the folder's files of these names; missing ones count as empty."""
    return _read(tuple((folder / name, _stamp(folder / name)) for name in names))


@lru_cache(maxsize=16)
def _read(files: tuple[tuple[Path, tuple[int, int] | None], ...]) -> str:
    return digest(*(b"" if changed is None else path.read_bytes() for path, changed in files))


def _stamp(path: Path) -> tuple[int, int] | None:
    """(time of the last change, size) of a file, None where there is none."""
    if not path.is_file():
        return None
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=16)
def _pool(name: str, seed: int, train: int, heldout: int, files: tuple[tuple[str, int, int], ...]) -> pools.Pool:
    return pools.build(name, seed, train, heldout)


def one_thread() -> None:
    """Use one thread in this process: sums of floats, and so results, depend on the number of threads, and a
    comparison fills the cores with processes."""
    torch.set_num_threads(1)
    try:
        import numba
    except ImportError:
        return
    numba.set_num_threads(1)


def recipe_of(spec: RunSpec) -> Recipe:
    """The run's recipe; the reference of a comparison gives the same number of rollouts to every prompt."""
    recipe = recipes.get(spec.recipe)
    if spec.tokens is None and f"{spec.recipe}@{spec.budget}" == REFERENCE:
        recipe = replace(recipe, allocator=fixed_group(spec.config.group))
    return recipe


def columns_of(recipe: Recipe, items: Sequence[Item]) -> dict[str, list[Any]]:
    """The columns that the recipe's reward reads and that the entries of the problems hold, one value a problem.
    What the sampler, the trainer or a variant gives, or is computed from it, is not looked for there, but for columns
    that say so.

    Raises:
        InvalidInput: some problems have the field and others lack it.
    """
    held, known = {}, {*ALWAYS, *OF_SAMPLER, ENTROPY, TEXT, *(recipe.variant.gives if recipe.variant else ())}
    read = [column for column in recipe.columns() if column.make is None or column.of_problem]
    for name in (column.name for column in read if column.name not in known):
        without = [item.key for item in items if name not in item.entry]
        if len(without) == len(items):
            continue
        if without:
            raise InvalidInput(
                f"the reward of recipe {recipe.name!r} reads {name!r}, and the entry of problem {without[0]!r} lacks "
                "it; give it for all problems"
            )
        held[name] = [item.entry[name] for item in items]
    return held


def wording_of(policy: LlamaPolicy, items: Sequence[Item]) -> Wording:
    """The texts of the problems, their solutions, and how the policy's tokenizer reads texts."""

    def write(texts: Sequence[str]) -> list[list[int]]:
        return [ids[1:] for ids in policy.encode(texts)]  # without the beginning of a sequence

    def ask(texts: Sequence[str], of: Sequence[int]) -> list[list[int]]:
        return policy.encode(texts)

    return Wording([item.prompt for item in items], ask, write, [item.solution for item in items])


def prepare(spec: RunSpec) -> tuple[Trainer, LlamaPolicy]:
    """The run before its first step: whatever is wrong with its settings and can be seen at once is raised here.

    Raises:
        BudgeteerError: the task, the model, the recipe, the device, or a budget that buys no rollout.
    """
    pool, policy, c = spec.pool_of_items, load_policy(Path(spec.model)), spec.config
    train, curve_items = pool.train, pool.heldout[: spec.curve_items]
    if spec.recipe == recipes.UNTRAINED:
        c = replace(c, steps=0)

    def verify(index: I64, rows: list[list[int]]) -> F64:
        return rewards(policy, pool.environment, [train[i] for i in index], rows)

    def evaluate(model: Llama) -> float:
        return accuracy(policy, model, pool.environment, curve_items, 1, c.max_tokens, seed=10_000 + c.seed)

    recipe = recipe_of(spec)
    trainer = Trainer(
        recipe,
        c,
        policy.model,
        policy.encode([item.prompt for item in train]),
        [item.key for item in train],
        verify,
        policy.markers,
        budget=spec.tokens,
        evaluate=evaluate if c.eval_every else None,
        identity=spec.identity(),
        decode=policy.decode,
        columns=columns_of(recipe, train),
        wording=wording_of(policy, train),
    )
    if c.steps:
        trainer.check()
    return trainer, policy


def execute(
    spec: RunSpec,
    folder: Path | None = None,
    on_step: Callable[[Progress, TrainConfig], bool] | None = None,
    save_model: Path | None = None,
    opened: Callable[[], RunLog] | None = None,
) -> Run | None:
    """Do one run; None when it was paused (its checkpoint is in ``folder``).

    Args:
        spec: what to run.
        folder: for checkpoints; None = none.
        on_step: called after each step; returning False pauses.
        save_model: write the trained policy, with its tokenizer, to this folder.
        opened: opens the log of the run's steps, once nothing is wrong with its settings; None = there is none.
    """
    trainer, policy = prepare(spec)
    c, pool, log = trainer.config, spec.pool_of_items, None if opened is None else opened()
    items = {item.key: item for item in pool.train}
    stopped = False

    def step(progress: Progress) -> bool:
        nonlocal stopped
        if log is not None:
            log.step(progress.step, metrics(progress, spec.tokens), samples(progress, policy.decode, items))
        stopped = on_step is not None and not on_step(progress, c)
        return not stopped

    try:
        progress = trainer.run(folder, step)
    finally:
        if log is not None:
            log.close()
    if stopped and progress.step < c.steps:
        return None
    held = (policy, trainer.model, pool.environment, pool.heldout)
    final = accuracy(*held, spec.eval_samples, c.max_tokens, seed=20_000 + c.seed)
    greedy = accuracy(*held, 1, c.max_tokens, seed=20_000 + c.seed, temperature=GREEDY_TEMPERATURE)
    if save_model is not None:
        save(trainer.model, save_model)
        for path in Path(spec.model).glob("*.json"):
            if path.name != "config.json":
                shutil.copy(path, save_model / path.name)
    curve = [*progress.curve, {"tokens": progress.used, "seconds": progress.seconds, "accuracy": final}]
    return {
        "recipe": spec.recipe,
        "budget": spec.budget,
        "seed": c.seed,
        "accuracy": final,
        GREEDY: greedy,
        "tokens": {
            "planned": progress.planned,
            "used": progress.used,
            "trained": progress.trained,
            "wasted": progress.wasted,
        },
        "seconds": progress.seconds,
        "curve": curve,
        "diagnostics": diagnostics(progress, policy.decode, pool.train),
    }


def metrics(progress: Progress, budget: int | None) -> dict[str, float]:
    """A step's metrics, by the names that TRL's adapter gives them."""
    row = progress.steps_log[-1]
    found = {f"budget/{name}": float(getattr(progress, name)) for name in ("planned", "used", "trained", "wasted")}
    if budget is not None:
        found["budget/left"] = float(budget - progress.used)
    found |= {"budget/rollouts": row["rollouts"], "reward": row["reward"], "mixed_groups": row["mixed"]}
    found |= {f"budget/reward/{name}": float(mean) for name, mean in row["terms"].items()}
    if progress.curve:
        found["heldout_accuracy"] = progress.curve[-1]["accuracy"]
    return found


def level_of(item: Item) -> str:
    """Label of a problem's difficulty in breakdowns: family, with the steps of a chain in pairs."""
    family = item.key.partition(":")[0]
    return f"{family} {item.level}" if item.level.isdigit() else item.level or family


def diagnostics(progress: Progress, decode: DecodeFn, train: Sequence[Item]) -> dict[str, Any]:
    """What the report draws, from a run's log."""
    items = {item.key: item for item in train}
    levels: dict[str, dict[str, int]] = defaultdict(lambda: {"used": 0, "wasted": 0, "rollouts": 0})
    for row in progress.steps_log:
        for key, (used, wasted, rollouts) in row["by_key"].items():
            level = levels[level_of(items[key])]
            level["used"] += used
            level["wasted"] += wasted
            level["rollouts"] += rollouts
    return {
        "tokens_by_level": dict(sorted(levels.items())),
        "rollouts_per_prompt": [{"step": row["step"], "counts": row["counts"]} for row in progress.steps_log],
        "steps": progress.step,
        **{
            f"{phase}_seconds": progress.phases.get(phase, 0.0)
            for phase in ("allocation", "stopping", "sampling", "training")
        },
        "mixed_groups": sum(row["mixed"] for row in progress.steps_log),
        "rollouts": sum(row["rollouts"] for row in progress.steps_log),
        "prefill_tokens": progress.prefill,
        "traces": samples(progress, decode, items),
    }


def samples(progress: Progress, decode: DecodeFn, items: Mapping[str, Item]) -> list[dict[str, Any]]:
    """Some rollouts of the last step, as texts; the prompt is as a variant said it.

    Args:
        progress: of the run.
        decode: token ids of completions -> their texts.
        items: key -> training problem.
    """
    texts = decode([t["tokens"] for t in progress.traces])
    return [
        {
            "prompt": trace.get("asked", items[trace["key"]].prompt),
            "completion": text,
            "status": Status(trace["status"]).word,
            "reward": trace["reward"],
            "tokens": len(trace["tokens"]),
        }
        for trace, text in zip(progress.traces, texts, strict=True)
    ]
