"""What trainers make of groups that are not all of one size: the same rows through each one's own code, and ours.

    python benchmarks/ragged_peers.py                        # TRL, which is installed, and ours
    python benchmarks/ragged_peers.py --verl PYTHON          # and verl, by the Python of `make test-verl`
    python benchmarks/ragged_peers.py --clones FOLDER        # and those that do not install here, from git repositories
    python benchmarks/ragged_peers.py --table                # the table of docs/ragged.md

Each writes its rows of benchmarks/results/ragged_peers.json and leaves the others. FOLDER has a git repository (bare or
not) of each of CLONES; of the file at the named commit the functions that compute advantages are taken as they stand,
and called. What they use of their own project beside torch is given to them here: see STUBS.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import itertools
import json
import math
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

OUT = Path(__file__).parent / "results" / "ragged_peers.json"
DOCS = Path(__file__).parent.parent / "docs" / "ragged.md"
MARKS = "<!-- of benchmarks/ragged_peers.py: -->\n", "<!-- end -->\n"
ASKED = 4
"""Rollouts a prompt that a trainer is told."""


class Row(NamedTuple):
    """A rollout: its prompt, its reward, and the tokens that the loss sees (0 = rejected, or padding)."""

    group: str
    reward: float
    length: int = 2


MIXED = [Row("a", 1), Row("a", 0), Row("a", 0), Row("a", 1)]
CASES: dict[str, list[Row]] = {
    "one row, right": [*MIXED, Row("b", 1)],
    "one row, wrong": [*MIXED, Row("b", 0)],
    "all equal": [*MIXED, *[Row("b", 1)] * 4],
    "all equal, others of two lengths": [*[Row("a", r, 1 + 3 * r) for r in (1, 0, 0, 1)], *[Row("b", 1)] * 4],
    "two rows": [*MIXED, Row("b", 1), Row("b", 0)],
    "a rejected row": [*MIXED, Row("b", 1), Row("b", 0), Row("b", 1), Row("b", 0, 0)],
    "padding rows": [*MIXED, *[Row("pad", 0, 0)] * 2],
}
"""Group a is the same in all; what the case is about is the other one."""
Answer = list[float | None] | str
"""Advantages of the rows (None = not finite), or an error."""
Function = Callable[[list[Row]], list[float]]


def tensors(rows: list[Row]) -> tuple[Any, Any, Any]:
    """Token-level rewards, mask and index of the rows."""
    width = max(row.length for row in rows)
    mask = torch.tensor([[int(t < row.length) for t in range(width)] for row in rows])
    rewards = torch.zeros(len(rows), width)
    for i, row in enumerate(rows):
        rewards[i, max(row.length - 1, 0)] = row.reward
    return rewards, mask, np.array([row.group for row in rows], object)


def first_tokens(value: Any) -> list[float]:
    """The advantage of each row's first token."""
    return [float(v) for v in (value[:, 0] if value.ndim == 2 else value)]


# -- ours --------------------------------------------------------------------------------------------------------------


def ours() -> dict[str, Function]:
    """Ours by the names of ``budgeteer.rl.rows``."""
    from budgeteer.rl.rows import advantages

    def of(method: str) -> Function:
        return lambda rows: advantages(
            method, [r.reward for r in rows], [r.group for r in rows], length=[r.length for r in rows]
        ).tolist()

    names = ("grpo:unbiased=true", "centred", "rloo", "batch-scaled", "opo", "pass-at-k:k=2")
    return {name: of(name) for name in names}


# -- TRL ---------------------------------------------------------------------------------------------------------------


def trl() -> dict[str, Function]:
    """TRL's trainer up to the advantages, with made-up rewards. It is given whole batches only, as its sampler does."""
    import logging

    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from budgeteer.models.thinker import THINKER

    logging.disable(logging.WARNING)

    def of(scale: str) -> Function:
        def run(rows: list[Row]) -> list[float]:
            def reward(completions: list[Any], **columns: Any) -> list[float | None]:
                return [None if row.length == 0 else row.reward for row in rows]

            size = -(-len(rows) // ASKED) * ASKED
            with tempfile.TemporaryDirectory() as folder:
                args = GRPOConfig(
                    folder, per_device_train_batch_size=size, num_generations=ASKED, max_completion_length=2,
                    scale_rewards=scale, use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False,
                )  # fmt: skip
                made = GRPOTrainer(
                    str(THINKER), reward, args, train_dataset=Dataset.from_dict({"prompt": [r.group for r in rows]}),
                    processing_class=AutoTokenizer.from_pretrained(THINKER),
                )  # fmt: skip
                made.model.train()
                batch = made._generate_and_score_completions([{"prompt": row.group} for row in rows])
            return first_tokens(batch["advantages"])

        return run

    return {"grpo (scale_rewards=group)": of("group"), "grpo (none)": of("none"), "grpo (batch)": of("batch")}


# -- verl --------------------------------------------------------------------------------------------------------------

VERL = (
    "grpo", "grpo_vectorized", "rloo", "rloo_vectorized", "reinforce_plus_plus_baseline", "opo", "gpg", "grpo_passk",
)  # fmt: skip


def verl() -> dict[str, Function]:
    """verl's registered estimators."""
    from omegaconf import OmegaConf
    from verl.trainer.ppo import core_algos

    config = OmegaConf.create({"norm_adv_by_std_in_grpo": True})

    def of(name: str) -> Function:
        def run(rows: list[Row]) -> list[float]:
            rewards, mask, index = tensors(rows)
            estimate = core_algos.get_adv_estimator_fn(name)
            value, _ = estimate(token_level_rewards=rewards, response_mask=mask, index=index, config=config)
            return first_tokens(value)

        return run

    return {name: of(name) for name in VERL}


# -- from their repositories -------------------------------------------------------------------------------------------


class Clone(NamedTuple):
    """A project that does not install here.

    Attributes:
        commit: that was read.
        functions: file -> names of functions, or ``Class.method``, or classes.
    """

    commit: str
    functions: dict[str, tuple[str, ...]]


CLONES = {
    "prime-rl": Clone(
        "559b44772e471d1538537b8805cc77f3824a5e64",
        {
            "src/prime_rl/orchestrator/algo/base.py": ("iter_trainable_traces",),
            "src/prime_rl/orchestrator/algo/grpo.py": ("GRPOAlgorithm.score_group",),
        },
    ),
    "SkyRL": Clone(
        "a9564572eb8e91076be43c1bd5e4615e3de17265",
        {
            "skyrl/backends/skyrl_train/utils/ppo_utils.py": (
                "compute_grpo_outcome_advantage", "compute_rloo_outcome_advantage", "compute_maxrl_advantage",
            )
        },
    ),
    "slime": Clone(
        "624b824a898ab0ec1fcb4d373004c7f3852bf515",
        {"slime/ray/rollout.py": ("RolloutManager._post_process_rewards",)},
    ),
    "NeMo-RL": Clone(
        "7ea279abfbeb698b092856d0dab61e7cf39bc909",
        {
            "nemo_rl/algorithms/utils.py": ("calculate_baseline_and_std_per_prompt",),
            "nemo_rl/algorithms/advantage_estimator.py": (
                "GRPOAdvantageEstimator", "ReinforcePlusPlusAdvantageEstimator",
            ),
        },
    ),
    "AReaL": Clone("4aef98d8d818af55b43621aaadba047ae10f4e77", {"areal/utils/data.py": ("Normalization",)}),
    "OpenRLHF": Clone(
        "3c3be6234e0cb353e76bb8019947db9dfe99fca7",
        {
            "openrlhf/models/utils.py": ("compute_reward",),
            "openrlhf/trainer/ppo_utils/experience_maker.py": (
                "RemoteExperienceMaker.compute_advantages_and_returns", "RemoteExperienceMaker.get_cumulative_returns",
            ),
        },
    ),
}  # fmt: skip


def assign_advantages(trace: Any, value: float) -> None:
    """Of prime-rl: here a trace has one advantage."""
    trace.advantage = value


def _nothing(*args: Any) -> None: ...


STUBS = {"assign_advantages": assign_advantages, "apply_length_penalties": _nothing, "logger": None}
"""Names that the functions use of their own projects, beside what is taken from them."""


def taken(folder: Path, name: str) -> dict[str, Any]:
    """The functions of a project, made of its source text."""
    scope: dict[str, Any] = {"torch": torch, "np": np, "defaultdict": defaultdict, "itertools": itertools, **STUBS}
    scope["dist"] = torch.distributed
    made: dict[str, Any] = {}
    sys.modules.setdefault("loguru", ModuleType("loguru"))
    sys.modules["loguru"].logger = SimpleNamespace(warning=_nothing)  # type: ignore[attr-defined]
    for path, wanted in CLONES[name].functions.items():
        shown = ["git", "-C", str(folder / name), "show", f"{CLONES[name].commit}:{path}"]
        tree = ast.parse(subprocess.run(shown, capture_output=True, text=True, check=True).stdout)
        for function in wanted:
            node: Any = tree
            for part in function.split("."):
                node = next(child for child in node.body if getattr(child, "name", None) == part)
            if not isinstance(node, ast.ClassDef):
                node.decorator_list = []
            future = ast.ImportFrom("__future__", [ast.alias("annotations")], 0)
            module = ast.fix_missing_locations(ast.Module([future, node], []))
            exec(compile(module, f"{name}/{path}", "exec"), scope)
            made[function.rpartition(".")[2]] = scope[node.name]
    return made


def skyrl(f: dict[str, Any]) -> dict[str, Function]:
    def of(compute: Any) -> Function:
        def run(rows: list[Row]) -> list[float]:
            rewards, mask, index = tensors(rows)
            return first_tokens(compute(token_level_rewards=rewards, response_mask=mask, index=index)[0])

        return run

    return {
        "grpo": of(f["compute_grpo_outcome_advantage"]),
        "rloo": of(f["compute_rloo_outcome_advantage"]),
        "maxrl": of(f["compute_maxrl_advantage"]),
    }


def slime(f: dict[str, Any]) -> dict[str, Function]:
    def of(estimator: str) -> Function:
        def run(rows: list[Row]) -> list[float]:
            args = SimpleNamespace(
                advantage_estimator=estimator, rewards_normalization=True, grpo_std_normalization=True,
                n_samples_per_prompt=ASKED, rollout_batch_size=len({row.group for row in rows}),
            )  # fmt: skip
            own = SimpleNamespace(custom_reward_post_process_func=None, args=args)
            samples = [SimpleNamespace(get_reward_value=lambda _, r=row: r.reward) for row in rows]
            return [float(v) for v in f["_post_process_rewards"](own, samples)[1]]

        return run

    return {"grpo": of("grpo"), "reinforce_plus_plus_baseline": of("reinforce_plus_plus_baseline")}


def nemo(f: dict[str, Any]) -> dict[str, Function]:
    settings = SimpleNamespace(use_leave_one_out_baseline=True, normalize_rewards=True, minus_baseline=True)
    loss = SimpleNamespace(use_kl_in_reward=False, reference_policy_kl_penalty=0.0, reference_policy_kl_type="k3")

    def of(kind: str) -> Function:
        def run(rows: list[Row]) -> list[float]:
            _, mask, index = tensors(rows)
            ids = {group: i for i, group in enumerate(dict.fromkeys(index.tolist()))}
            prompts = torch.tensor([[ids[group]] for group in index.tolist()])
            rewards = torch.tensor([float(row.reward) for row in rows])
            return first_tokens(f[kind](settings, loss).compute_advantage(prompts, rewards, mask.float()))

        return run

    return {
        "grpo (leave one out)": of("GRPOAdvantageEstimator"),
        "reinforce_plus_plus": of("ReinforcePlusPlusAdvantageEstimator"),
    }


def areal(f: dict[str, Any]) -> dict[str, Function]:
    def of(std: str | None) -> Function:
        def run(rows: list[Row]) -> list[float]:
            config = SimpleNamespace(
                mean_level="group", mean_leave1out=False, std_level=std, std_unbiased=True, group_size=ASKED, eps=1e-5
            )
            return first_tokens(f["Normalization"](config)(torch.tensor([float(row.reward) for row in rows])))

        return run

    return {"reward_norm (group, group)": of("group"), "reward_norm (group, batch)": of("batch")}


def prime(f: dict[str, Any]) -> dict[str, Function]:
    """prime-rl scores a group at a time; a trace without tokens that were sampled is none of it."""

    def run(rows: list[Row]) -> list[float]:
        own = SimpleNamespace(length_penalty=None)
        value: list[float] = [0.0] * len(rows)
        for group in dict.fromkeys(row.group for row in rows):
            at = [i for i, row in enumerate(rows) if row.group == group]
            traces = [
                SimpleNamespace(
                    reward=float(rows[i].reward), has_error=False, agent=SimpleNamespace(trainable=True),
                    nodes=[SimpleNamespace(mask=[1] * rows[i].length)], advantage=0.0,
                )
                for i in at
            ]  # fmt: skip
            if any(rows[i].length for i in at):
                asyncio.run(f["score_group"](own, [SimpleNamespace(traces=traces)]))
            for i, trace in zip(at, traces, strict=True):
                value[i] = trace.advantage
        return value

    return {"grpo": run}


def openrlhf(f: dict[str, Any]) -> dict[str, Function]:
    def of(estimator: str) -> Function:
        def run(rows: list[Row]) -> list[float]:
            _, mask, _ = tensors(rows)
            advantage = SimpleNamespace(estimator=estimator, gamma=1.0, no_std_norm=False)
            args = SimpleNamespace(
                algo=SimpleNamespace(advantage=advantage), rollout=SimpleNamespace(n_samples_per_prompt=ASKED),
                reward=SimpleNamespace(clip_range=None),
            )  # fmt: skip
            own = SimpleNamespace(strategy=SimpleNamespace(args=args), kl_ctl=SimpleNamespace(value=0.0))
            own.advantage_estimator = estimator
            own.get_cumulative_returns = lambda *given: f["get_cumulative_returns"](own, *given)
            part = SimpleNamespace(
                index=list(range(len(rows))), rewards=torch.tensor([float(row.reward) for row in rows]), info={},
                action_mask=mask.bool(), kl=torch.zeros(mask.shape),
            )  # fmt: skip
            f["compute_advantages_and_returns"](own, [part])
            return first_tokens(part.advantages * mask)

        return run

    return {name: of(name) for name in ("group_norm", "rloo", "reinforce_baseline")}


READERS = {"prime-rl": prime, "SkyRL": skyrl, "slime": slime, "NeMo-RL": nemo, "AReaL": areal, "OpenRLHF": openrlhf}


# -- all of them -------------------------------------------------------------------------------------------------------


def measured(functions: dict[str, Function]) -> dict[str, dict[str, Answer]]:
    """Estimator -> case -> the rows' advantages, or the error."""

    def of(function: Function, rows: list[Row]) -> Answer:
        try:
            return [round(value, 4) + 0.0 if math.isfinite(value) else None for value in function(rows)]
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"

    return {name: {case: of(function, rows) for case, rows in CASES.items()} for name, function in functions.items()}


def cell(answer: Answer, rows: list[Row]) -> str:
    """The advantages of the case's own group."""
    if isinstance(answer, str):
        return "fails"
    shown = [_shown(value) for value, row in zip(answer, rows, strict=True) if row.group != "a"]
    return f"all {shown[0]}" if len(shown) > 1 and len(set(shown)) == 1 else ", ".join(shown)


def _shown(value: float | None) -> str:
    return "NaN" if value is None else f"{value:.3g}" if value else "0"


def table(stored: dict[str, Any]) -> str:
    """Markdown: a line an estimator."""
    lines = ["| trainer | estimator | " + " | ".join(CASES) + " | mixed, beside padding |"]
    lines.append("|---" * (len(CASES) + 3) + "|")
    for peer, entry in stored["peers"].items():
        for name, answers in entry["advantages"].items():
            cells = [cell(answers[case], rows) for case, rows in CASES.items()]
            padded = answers["padding rows"]
            beside = "fails" if isinstance(padded, str) else ", ".join(map(_shown, padded[:4]))
            lines.append(f"| {peer} | `{name}` | " + " | ".join(cells) + f" | {beside} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verl", metavar="PYTHON", help="Python of an environment with verl")
    parser.add_argument("--clones", metavar="FOLDER", type=Path, help="folder with git repositories named as in CLONES")
    parser.add_argument("--table", action="store_true", help="write the table into docs/ragged.md and run nothing")
    parser.add_argument("--in-verl", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.in_verl:
        from importlib.metadata import version

        print(json.dumps({"version": version("verl"), "advantages": measured(verl())}))
        return
    stored = json.loads(OUT.read_text("utf-8")) if OUT.exists() else {"peers": {}}
    if not given.table:
        stored = {
            "cases": {case: [list(row) for row in rows] for case, rows in CASES.items()},
            "peers": run(given, stored),
        }
        OUT.write_text(json.dumps(stored, indent=1) + "\n", "utf-8")
    if DOCS.exists():
        before, rest = DOCS.read_text("utf-8").split(MARKS[0])
        DOCS.write_text(before + MARKS[0] + table(stored) + MARKS[1] + rest.split(MARKS[1])[1], "utf-8")
    print(table(stored), end="")


def run(given: argparse.Namespace, stored: dict[str, Any]) -> dict[str, Any]:
    """The peers, those that ran and those that were stored."""
    from importlib.metadata import version

    made = {"budgeteer": {"advantages": measured(ours())}}
    made["TRL"] = {"version": version("trl"), "advantages": measured(trl())}
    if given.verl:
        called = [given.verl, __file__, "--in-verl"]
        shown = subprocess.run(called, capture_output=True, text=True, check=True).stdout
        made["verl"] = json.loads(shown.splitlines()[-1])
    for name in CLONES if given.clones else ():
        entry = {"commit": CLONES[name].commit, "files": list(CLONES[name].functions)}
        made[name] = {**entry, "advantages": measured(READERS[name](taken(given.clones, name)))}
    order = ["budgeteer", "TRL", "verl", *CLONES]
    return {name: {**stored["peers"], **made}[name] for name in order if name in {**stored["peers"], **made}}


if __name__ == "__main__":
    main()
