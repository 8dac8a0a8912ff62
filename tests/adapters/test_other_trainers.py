"""Advantages in slime, SkyRL and OpenRLHF: their hooks as they are written, and groups of any size by hand.

The texts of ``SLIME``, ``SKYRL`` and ``OPENRLHF`` are quoted from the projects' sources at the commits that they name;
what is tested is that these lines can call the functions here.
"""

from __future__ import annotations

import ast
import inspect
import math
import sys
from enum import Enum
from types import ModuleType, SimpleNamespace

import pytest

from budgeteer.adapters import openrlhf, skyrl, slime
from budgeteer.core.errors import InvalidInput

torch = pytest.importorskip("torch")

# THUDM/slime, slime/ray/rollout.py, 624b824a898ab0ec1fcb4d373004c7f3852bf515 (2026-08-21)
SLIME = "self.custom_reward_post_process_func(self.args, samples)"
# NovaSky-AI/SkyRL, skyrl/backends/skyrl_train/utils/ppo_utils.py, a9564572eb8e91076be43c1bd5e4615e3de17265 (2026-08-21)
SKYRL = """estimator_func(
    token_level_rewards=token_level_rewards,
    response_mask=response_mask,
    index=index,
    values=values,
    grpo_norm_by_std=grpo_norm_by_std,
    gamma=gamma,
    lambd=lambd,
    config=config,
    **kwargs,
)"""
# OpenRLHF/OpenRLHF, openrlhf/trainer/ppo_utils/experience_maker.py,
# 3c3be6234e0cb353e76bb8019947db9dfe99fca7 (2026-08-13)
OPENRLHF = "def compute_advantages_and_returns(self, experiences: List[Experience]) -> List[Experience]: ..."


def test_slimes_call_fits():
    call = ast.parse(SLIME, mode="eval").body
    bound = inspect.signature(slime.post_process_rewards).bind(*[ast.unparse(argument) for argument in call.args])
    assert list(bound.arguments.items()) == [("args", "self.args"), ("samples", "samples")]


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_skyrls_call_fits(name):
    call = ast.parse(SKYRL, mode="eval").body
    given = {keyword.arg: keyword.arg for keyword in call.keywords if keyword.arg}
    bound = inspect.signature(skyrl.advantage_of(name)).bind(**given)
    named = {"token_level_rewards", "response_mask", "index", "grpo_norm_by_std"}
    assert named == set(bound.arguments) - {"ignored"}
    assert set(bound.arguments["ignored"]) == {"values", "gamma", "lambd", "config"}


def test_openrlhfs_method_fits():
    method = ast.parse(OPENRLHF).body[0]
    own = inspect.signature(openrlhf.compute_advantages_and_returns)
    assert [argument.arg for argument in method.args.args] == list(own.parameters)
    assert method.name == openrlhf.compute_advantages_and_returns.__name__


# -- slime -------------------------------------------------------------------------------------------------------------


class Status(Enum):
    COMPLETED = "completed"
    ABORTED = "aborted"


def sample(group, reward, *, rollout=None, length=4, mask=None, removed=False, status=Status.COMPLETED):
    return SimpleNamespace(
        group_index=group, rollout_id=rollout, response_length=length, loss_mask=mask, remove_sample=removed,
        status=status, get_reward_value=lambda args: reward,
    )  # fmt: skip


def args(estimator="grpo", std=True, **more):
    return SimpleNamespace(advantage_estimator=estimator, grpo_std_normalization=std, **more)


def test_slime_by_hand():
    samples = [
        sample(0, 1.0), sample(1, 1.0), sample(0, 0.0), sample(2, 1.0), sample(2, 1.0), sample(0, 0.0), sample(0, 1.0),
    ]  # fmt: skip
    raw, value = slime.post_process_rewards(args(), samples)
    assert raw == [1, 1, 0, 1, 1, 0, 1]
    one = 0.5 / math.sqrt(1 / 3)
    assert value == pytest.approx([one, 0, -one, 0, 0, -one, one])
    assert slime.post_process_rewards(args(std=False), samples)[1] == pytest.approx([0.5, 0, -0.5, 0, 0, -0.5, 0.5])
    baseline = args("reinforce_plus_plus_baseline")
    assert slime.post_process_rewards(baseline, samples)[1] == pytest.approx([0.5, 0, -0.5, 0, 0, -0.5, 0.5])
    named = args(budgeteer_advantage="rloo")
    assert slime.post_process_rewards(named, samples)[1] == pytest.approx([2 / 3, 0, -2 / 3, 0, 0, -2 / 3, 2 / 3])


def test_what_slime_does_not_train_on_enters_no_mean():
    samples = [
        sample(0, 1.0), sample(0, 0.0), sample(0, 0.0, status=Status.ABORTED), sample(0, 0.0, removed=True),
        sample(0, 0.0, mask=[0, 0, 0, 0]), sample(0, 5.0, length=0), sample(0, None),
    ]  # fmt: skip
    raw, value = slime.post_process_rewards(args(std=False), samples)
    assert raw == [1, 0, 0, 0, 0, 5, None]
    assert value == [0.5, -0.5, 0, 0, 0, 0, 0]


def test_samples_of_one_rollout_count_once():
    """Rollout 7 was compacted into three samples; its reward is the last one's, and the mean is over two rollouts."""
    samples = [
        sample(0, 0.25, rollout=7),
        sample(0, 0.5, rollout=7),
        sample(0, 1.0, rollout=7),
        sample(0, 0.0, rollout=8),
    ]
    assert slime.post_process_rewards(args(std=False), samples)[1] == [0.5, 0.5, 0.5, -0.5]


def test_slime_refusals():
    with pytest.raises(InvalidInput, match="--advantage-estimator ppo compares no rollouts"):
        slime.post_process_rewards(args("ppo"), [sample(0, 1.0)])
    with pytest.raises(InvalidInput, match="no group_index"):
        slime.post_process_rewards(args(), [sample(None, 1.0)])


# -- SkyRL -------------------------------------------------------------------------------------------------------------


class Registry:
    """What ``register`` uses of SkyRL's registry: a second registration of a name is an error."""

    def __init__(self):
        self.functions = {}

    def list_available(self):
        return list(self.functions)

    def register(self, name, function):
        assert name not in self.functions
        self.functions[name] = function


def test_skyrl_by_hand():
    registry = Registry()
    names = skyrl.register(registry)
    assert skyrl.register(registry) == names == list(registry.functions)
    rewards = torch.tensor([[0, 1.0], [1, 0], [0, 0], [1, 0]])
    mask = torch.tensor([[1, 1], [1, 0], [1, 0], [0, 0]])
    value, returns = registry.functions["budgeteer_rloo"](
        token_level_rewards=rewards, response_mask=mask, index=["a", "b", "a", "a"], values=None, grpo_norm_by_std=True,
        gamma=1.0, lambd=1.0, config=None,
    )  # fmt: skip
    assert value.tolist() == [[1, 1], [0, 0], [-1, 0], [0, 0]]
    assert returns is value
    with pytest.raises(InvalidInput, match="budgeteer_dr_grpo"):
        registry.functions["budgeteer_grpo"](rewards, mask, ["a"] * 4, grpo_norm_by_std=False)


# -- OpenRLHF ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def maker(monkeypatch):
    """The experience maker, with the two functions that the method takes from OpenRLHF, as they are there."""

    def compute_reward(r, kl_coef, kl, action_mask, reward_clip_range=None):
        ends = action_mask.size(1) - 1 - action_mask.long().fliplr().argmax(dim=1, keepdim=True)
        return torch.zeros_like(kl).scatter_(1, ends, r.unsqueeze(1).to(kl.dtype)) - max(kl_coef, 0) * kl

    class Maker:
        def __init__(self, estimator):
            advantage = SimpleNamespace(estimator=estimator, no_std_norm=False)
            args = SimpleNamespace(algo=SimpleNamespace(advantage=advantage), reward=SimpleNamespace(clip_range=None))
            self.strategy, self.kl_ctl = SimpleNamespace(args=args), SimpleNamespace(value=0.5)

        def get_cumulative_returns(self, rewards, action_mask, gamma):
            assert gamma == 1.0
            return (rewards * action_mask).flip(1).cumsum(1).flip(1)

    penalised = []
    content = {
        "openrlhf": {}, "openrlhf.models": {}, "openrlhf.models.utils": {"compute_reward": compute_reward},
        "openrlhf.trainer": {}, "openrlhf.trainer.ppo_utils": {},
        "openrlhf.trainer.ppo_utils.length_penalty": {"apply_length_penalties": lambda e, _: penalised.append(len(e))},
    }  # fmt: skip
    for name, attributes in content.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    openrlhf.install(Maker)
    Maker.penalised = penalised
    return Maker


def experience(prompts, rewards, mask, kl=0.0):
    mask = torch.tensor(mask)
    return SimpleNamespace(
        prompts=prompts, labels=["x"] * len(prompts), rewards=torch.tensor(rewards), action_mask=mask.bool(),
        kl=torch.full(mask.shape, kl), info={}, returns=None, advantages=None,
    )  # fmt: skip


def test_openrlhf_by_hand(maker):
    parts = [
        experience(["a", "b"], [1.0, 1.0], [[1, 1, 0], [1, 1, 1]]),
        experience(["a", "a"], [0.0, 9.0], [[1, 0, 0], [0, 0, 0]], kl=0.2),
    ]
    made = maker("rloo")
    assert made.compute_advantages_and_returns(parts) is parts
    assert maker.penalised == [2]
    # the group of a: 1 and 0, its third row has no action; b is alone; the KL penalty is 0.5 * 0.2 a token
    assert parts[0].advantages.tolist() == [[1, 1, 0], [0, 0, 0]]
    torch.testing.assert_close(parts[1].advantages, torch.tensor([[-1.1, 0, 0], [0, 0, 0]]))
    assert all(part.kl is None and "return" in part.info for part in parts)
    with pytest.raises(InvalidInput, match="gae compares no rollouts"):
        maker("gae").compute_advantages_and_returns(parts)
