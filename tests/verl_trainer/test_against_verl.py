"""The adapter in verl 0.9.1 itself: its registries, its formulas, its agent loop, transfer queue and trainer.

They come in an environment of their own: ``make test-verl``. Nothing here generates text: a worker of verl's own class
answers with made-up tokens.
"""

from __future__ import annotations

import shlex
import sys
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

import ray  # noqa: E402
import torch  # noqa: E402
import transfer_queue as tq  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from tensordict import TensorDict  # noqa: E402
from verl.experimental.agent_loop import AgentLoopOutput  # noqa: E402
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics  # noqa: E402
from verl.trainer.ppo import core_algos  # noqa: E402
from verl.trainer.ppo.utils import need_critic, need_reference_policy  # noqa: E402
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ  # noqa: E402
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync  # noqa: E402
from verl.utils import tensordict_utils as td  # noqa: E402
from verl.utils.config import validate_config  # noqa: E402
from verl.utils.import_utils import load_class_from_fqn  # noqa: E402
from verl.workers.config import FSDPActorConfig  # noqa: E402

from budgeteer.adapters.verl.manager import (  # noqa: E402
    BudgetedAgentLoopManager,
    RewardingAgentLoopManager,
    SaveNumbers,
)
from budgeteer.adapters.verl.settings import settings_of  # noqa: E402
from budgeteer.core import registry  # noqa: E402
from budgeteer.core.plan import ENDED  # noqa: E402
from budgeteer.rl.reward.protocol import Columns  # noqa: E402
from helpers.letters import Letters  # noqa: E402

PAIRS = {"grpo": "grpo", "rloo": "rloo", "opo": "opo"}


def rows(seed, groups=6, size=4, width=9, equal_length=False):
    """Equal groups in random order, of which none is all equal."""
    rng = np.random.default_rng(seed)
    reward = rng.random((groups, size)).round(1)
    reward[:, 0] = 1 - reward[:, 1:].mean(1).round()
    order = rng.permutation(groups * size)
    length = np.full(groups * size, width) if equal_length else rng.integers(1, width + 1, groups * size)
    mask = torch.from_numpy((np.arange(width) < length[:, None]).astype(np.int64))
    tokens = torch.zeros(groups * size, width)
    tokens[torch.arange(groups * size), torch.from_numpy(length - 1)] = torch.from_numpy(
        reward.reshape(-1)[order]
    ).float()
    index = np.array([f"uid{i // size}" for i in order], object)
    return {"token_level_rewards": tokens, "response_mask": mask, "index": index}


def both(ours, theirs, given, **config):
    settings = OmegaConf.create({"norm_adv_by_std_in_grpo": True, **config})
    made = []
    for name in (f"budgeteer_{ours}", theirs):
        copied = {key: value.clone() if torch.is_tensor(value) else value for key, value in given.items()}
        made.append(core_algos.get_adv_estimator_fn(name)(**copied, config=settings)[0].numpy())
    return made


# -- formulas ----------------------------------------------------------------------------------------------------------


def test_the_plugin_was_loaded_by_verl():
    assert "budgeteer_grpo" in core_algos.ADV_ESTIMATOR_REGISTRY
    assert "budgeteer_gspo" in core_algos.POLICY_LOSS_REGISTRY


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", list(PAIRS))
def test_equal_groups_have_verls_advantages(name, seed):
    ours, theirs = both(name, PAIRS[name], rows(seed))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)  # verl adds 1e-6 to the deviation
    assert np.abs(ours).max() > 0.1


@pytest.mark.parametrize("seed", range(4))
def test_dr_grpo_is_verls_grpo_without_deviation(seed):
    given = rows(seed)
    ours = core_algos.get_adv_estimator_fn("budgeteer_dr_grpo")(**given)[0]
    theirs = core_algos.compute_grpo_outcome_advantage(
        given["token_level_rewards"].clone(), given["response_mask"], given["index"], norm_adv_by_std_in_grpo=False
    )[0]
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("seed", range(4))
def test_reinforce_with_baseline_is_verls_where_all_lengths_are_equal(seed):
    """verl takes mean and deviation over tokens, with n - 1; over rows of equal length they are those of the rows."""
    given = rows(seed, equal_length=True)
    ours, theirs = both("reinforce_plus_plus_baseline", "reinforce_plus_plus_baseline", given)
    tokens = given["response_mask"].sum().item()
    np.testing.assert_allclose(ours * np.sqrt((tokens - 1) / tokens), theirs, rtol=1e-4, atol=1e-6)


def test_where_groups_are_ragged_verl_differs_and_so():
    """What the documentation says of verl: a row alone has its raw reward, an empty row enters its group's mean."""
    reward, length = [1.0, 1, 0, 0, 1, 0, 0], [2, 2, 2, 2, 2, 2, 0]
    mask = torch.from_numpy((np.arange(2) < np.array(length)[:, None]).astype(np.int64))
    tokens = torch.tensor(reward)[:, None] * torch.tensor([1.0, 0])
    given = {"token_level_rewards": tokens, "response_mask": mask, "index": np.array(list("abbbccc"), object)}
    ours, theirs = both("grpo", "grpo", given)
    np.testing.assert_allclose(theirs[:, 0], [1, 1.1547, -0.5773, -0.5773, 1.1547, -0.5773, 0], atol=1e-3)
    np.testing.assert_allclose(ours[:, 0], [0, 1.1547, -0.5773, -0.5773, 0.7071, -0.7071, 0], atol=1e-3)


@pytest.mark.parametrize("mode", ["seq-mean-token-mean", "token-mean"])
def test_gspo_is_verls(mode):
    torch.manual_seed(0)
    old, mask = -torch.rand(6, 7), (torch.arange(7) < torch.tensor([[7], [3], [1], [5], [7], [0]])).long()
    advantage = torch.randn(6, 1) * mask
    config = FSDPActorConfig(
        strategy="fsdp", clip_ratio=0.2, clip_ratio_low=0.05, clip_ratio_high=0.1, ppo_micro_batch_size_per_gpu=1,
        rollout_n=1,
    )  # fmt: skip
    values, gradients = [], []
    for name in ("budgeteer_gspo", "gspo"):
        new = (old + 0.3 * torch.sin(torch.arange(42.0).view(6, 7))).requires_grad_()
        value, _ = core_algos.get_policy_loss_fn(name)(old, new, advantage, mask, mode, config)
        value.backward()
        values.append(value.item())
        gradients.append(new.grad)
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0


# -- the loop ----------------------------------------------------------------------------------------------------------


class Worker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):
    """verl's worker with an agent loop that answers at once, in 10 + session tokens; odd prompts can be right."""

    def __init__(self, config, *handles):
        self.config, self.processor, self.background_tasks = config, None, set()
        self.reward_loop_worker_handles, self.distillation_enabled = None, False
        tq.init()

    async def _run_agent_loop(self, sampling_params, trajectory, *, agent_name, trace, **kwargs):
        number, session = int(kwargs["raw_prompt"][0]["content"]), kwargs["session_id"]
        tokens = [5] * (10 + session)
        output = AgentLoopOutput(
            prompt_ids=[1, 2], response_ids=tokens, response_mask=[1] * len(tokens), num_turns=2,
            metrics=AgentLoopMetrics(), reward_score=float(number % 2 and session % 2), extra_fields={},
        )  # fmt: skip
        await self._agent_loop_postprocess(output, trajectory["validate"], **kwargs)


class Manager(BudgetedAgentLoopManager):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(Worker)


class Trainer(PPOTrainerSync):
    """verl's trainer without models: prompts from a list, one step up to the advantages."""

    manager = Manager

    def __init__(self, config, prompts):
        super().__init__(config)
        self.replay_buffer.poll_interval = 0.05
        self.global_steps, self.prompts, self.kl_ctrl_in_reward = 1, prompts, None
        self.tokenizer = SimpleNamespace(eos_token_id=0, pad_token_id=0)
        self.actor_rollout_wg = SimpleNamespace(_dispatch_info={"actor": [0, 1]})
        self.agent_loop_manager = self.manager.create(config=config, llm_client=None)

    def _fetch_one_gen_batch(self):
        n = len(self.prompts)
        messages = np.empty(n, object)
        messages[:] = [[{"role": "user", "content": str(i)}] for i in self.prompts]
        uid = np.array([f"{self.global_steps}x{i}" for i in range(n)], object)
        return td.get_tensordict({"raw_prompt": messages, "uid": uid, "index": np.arange(n)})

    def once(self):
        """Advantages by key, and how many rows verl added."""
        self.prepare_step()
        batch, _ = self.replay_buffer.sample(self.global_steps, "train", self.config.data.train_batch_size)
        real = len(batch.keys)
        batch = self._balance_batch(batch, metrics={})
        self._compute_advantage(batch, metrics={})
        data = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["advantages"])
        value = {key: float(row[0]) for key, row in zip(batch.keys, data["advantages"], strict=True)}
        tq.kv_clear(keys=batch.keys, partition_id="train")
        self.global_steps += 1
        return value, len(batch.keys) - real


@pytest.fixture(scope="module")
def cluster():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    tq.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}}))
    yield
    tq.close()
    ray.shutdown()


def config_of(folder, *more):
    """verl's own configuration, with what the example of the documentation sets."""
    overrides = [
        "algorithm.adv_estimator=budgeteer_grpo", "actor_rollout_ref.rollout.name=vllm",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.response_length=20", "actor_rollout_ref.rollout.agent.num_workers=1",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2", "data.train_batch_size=8", "trainer.n_gpus_per_node=2",
        "trainer.nnodes=1", f"trainer.default_local_dir={folder}", "trainer.save_freq=1",
        "+actor_rollout_ref.rollout.agent.agent_loop_manager_class=budgeteer.adapters.verl.manager.BudgetedAgentLoopManager",
        "trainer.checkpoint_callback_class=budgeteer.adapters.verl.manager.SaveNumbers",
        "trainer.total_training_steps=6", "+budgeteer.recipe='grpo:allocator=neyman'", "+budgeteer.budget=2k", *more,
    ]  # fmt: skip
    with initialize_config_dir(str(files("verl") / "trainer" / "config"), version_base=None):
        return compose("ppo_trainer", overrides=overrides)


def test_the_examples_command_is_a_configuration_of_verl():
    """The overrides of ``examples/verl_budget.sh``, composed and checked by verl as it does before a run."""
    text = (Path(__file__).parents[2] / "examples" / "verl_budget.sh").read_text("utf-8")
    words = shlex.split(text.split("verl.trainer.main_ppo")[1].replace("\\\n", " "))
    given = [word.replace("$MODEL", "m").replace("$TRAIN", "t").replace("$VAL", "v") for word in words if "=" in word]
    with initialize_config_dir(str(files("verl") / "trainer" / "config"), version_base=None):
        config = compose("ppo_trainer", overrides=given)
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    settings = settings_of(config)
    assert (settings.budget, settings.group, settings.multiple, settings.steps) == (30_000_000, 8, 256, 100)
    assert (
        load_class_from_fqn(config.actor_rollout_ref.rollout.agent.agent_loop_manager_class) is BudgetedAgentLoopManager
    )
    assert load_class_from_fqn(config.trainer.checkpoint_callback_class) is SaveNumbers


def test_a_run_in_verls_loop(cluster, tmp_path):
    config = config_of(tmp_path)
    run = Trainer(config, prompts=range(8))
    manager = run.agent_loop_manager
    for _ in range(3):
        value, added = run.once()
        groups = [sum(key.startswith(f"{run.global_steps - 1}x{i}_") for key in value) for i in range(8)]
        assert added == 0
        assert sum(groups) % 8 == 0
        assert all(n == 0 or n >= 2 for n in groups)
        even = [v for key, v in value.items() if int(key.split("x")[1].split("_")[0]) % 2 == 0]
        assert not any(even)  # always wrong: no gradient
        assert any(value.values())
    assert min(groups[1::2]) > max(groups[::2])  # the last step has learnt which prompts teach
    spent = manager.numbers.spent
    assert (spent.step, len(manager.numbers.history.keys)) == (3, 8)
    assert 10 * spent.rollouts <= spent.used <= 20 * spent.rollouts
    # a checkpoint, as verl writes it, and a run that goes on from it
    folder = tmp_path / "global_step_3"
    folder.mkdir()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("3")
    assert type(run.checkpoint_callback) is SaveNumbers
    run.checkpoint_callback.on_save(trainer=run, global_step=3, checkpoint_dir=str(folder), async_save=False)
    again = Manager.create(config=config, llm_client=None)
    assert again.numbers.state_dict() == manager.numbers.state_dict()


def test_validation_has_verls_own_numbers(cluster, tmp_path):
    run = Trainer(config_of(tmp_path, "actor_rollout_ref.rollout.val_kwargs.n=3"), prompts=range(4))
    batch = run._fetch_one_gen_batch()
    td.assign_non_tensor_data(batch, "global_steps", 1)
    td.assign_non_tensor_data(batch, "validate", True)
    tags = [{"is_prompt": True, "status": "pending", "global_steps": 1} for _ in range(4)]
    tq.kv_batch_put(keys=list(batch["uid"]), partition_id="val", tags=tags)
    run.agent_loop_manager.generate_sequences(batch)
    made, _ = run.replay_buffer.sample(global_steps=1, partition_id="val", batch_size=4)
    assert len(made.keys) == 12
    assert run.agent_loop_manager.numbers.spent.step == 0
    tq.kv_clear(keys=made.keys, partition_id="val")


def test_rows_that_verl_adds_change_nothing(cluster, tmp_path):
    run = Trainer(config_of(tmp_path, "+budgeteer.multiple=1", "+budgeteer.step_budget=170"), prompts=range(8))
    value, added = run.once()
    assert added == -(len(value) - added) % 8 > 0
    assert not any(v for key, v in value.items() if key.startswith("pad"))
    for i in range(8):
        own = [v for key, v in value.items() if key.startswith(f"1x{i}_")]
        assert sum(own) == pytest.approx(0, abs=1e-5)


# -- rewards that read rows --------------------------------------------------------------------------------------------


class Speaker(Worker):
    """A worker whose answers differ: session i thinks i words; an entropy and a column of the data set are there."""

    async def _run_agent_loop(self, sampling_params, trajectory, *, agent_name, trace, **kwargs):
        session = kwargs["session_id"]
        tokens = [*map(ord, "wait " * session + "</think>\\boxed{4}")]
        output = AgentLoopOutput(
            prompt_ids=[1, 2], response_ids=tokens, response_mask=[1] * len(tokens), num_turns=2,
            metrics=AgentLoopMetrics(), reward_score=float(session % 2), extra_fields={},
        )  # fmt: skip
        await self._agent_loop_postprocess(output, trajectory["validate"], **kwargs)


class Rewarding(RewardingAgentLoopManager):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(Speaker)
        self.reader._make = Letters


class Told(Trainer):
    """The trainer whose data set says an effort of each prompt in ``extra_info``."""

    manager = Rewarding

    def _fetch_one_gen_batch(self):
        batch = super()._fetch_one_gen_batch()
        td.assign_non_tensor_stack(batch, "extra_info", [{"effort": 0.9} for _ in self.prompts])
        return batch

    def _compute_advantage(self, batch, metrics):
        """As verl does before it: entropies of the old policy are in the queue."""
        lengths = [len(row) for row in tq.kv_batch_get(batch.keys, "train", ["response_mask"])["response_mask"]]
        entropy = torch.nested.as_nested_tensor([torch.linspace(0.1, 1, n) for n in lengths], layout=torch.jagged)
        tq.kv_batch_put(batch.keys, "train", fields=TensorDict({"entropy": entropy}, batch_size=len(lengths)))
        return super()._compute_advantage(batch, metrics)


@pytest.mark.parametrize("name", ["arlcp", "pear", "e1", "laser"])
def test_rewards_read_rows_of_verls_queue(cluster, tmp_path, name):
    """Rewards of texts, entropies and the data set, and one with a state, have the numbers of the reward itself."""
    config = config_of(
        tmp_path, "algorithm.adv_estimator=budgeteer_dr_grpo", f"+algorithm.budgeteer_reward={name}",
        "+algorithm.budgeteer_max_tokens=40", "actor_rollout_ref.rollout.response_length=40",
    )  # fmt: skip
    run = Told(config, prompts=range(8))
    sessions = np.tile(np.arange(4), 8)
    texts = ["wait " * i + "</think>\\boxed{4}" for i in sessions]
    length = np.array([len(text) for text in texts])
    width = int(length.max())
    entropy = np.full((32, width), np.nan)
    for own, n in zip(entropy, length.tolist(), strict=True):
        own[:n] = np.linspace(0.1, 1, n)
    given = {
        "closed": length - 9, "answered": length, "text": texts, "entropy": entropy, "effort": [0.9] * 32,
        "tokens": np.array([[*map(ord, text), *[0] * (width - len(text))] for text in texts]),
        "sampled": (np.arange(width) < length[:, None]) * 1, "prompt_key": np.repeat(list("01234567"), 4),
    }  # fmt: skip
    method = registry.part_of("reward", name)
    state = method.init()
    for _ in range(2):
        rows = Columns(sessions % 2, length, np.repeat(np.arange(8), 4), [40] * 32, [ENDED] * 32)
        rows = rows.completed(method.needs, given)
        wanted, state = method.score(state, rows).reshape(8, 4), method.observe(state, rows)
        value, _ = run.once()
        step = run.global_steps - 1
        got = np.array([[value[f"{step}x{i}_{session}_0"] for session in range(4)] for i in range(8)])
        np.testing.assert_allclose(got, wanted - wanted.mean(1, keepdims=True), atol=1e-5)
    assert np.ptp(wanted) > 0
    if name == "laser":
        run.checkpoint_callback.on_save(trainer=run, global_step=2, checkpoint_dir=str(tmp_path), async_save=False)
        run.agent_loop_manager.load(tmp_path)
        assert run.agent_loop_manager.reader.state_dict()["laser"]["step"] == 2
