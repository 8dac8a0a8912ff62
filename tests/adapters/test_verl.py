"""verl's adapter on a stand-in of its registries, transfer queue and loop (``make test-verl`` has the real ones)."""

from __future__ import annotations

import importlib
import logging
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from budgeteer.adapters.token_level import ESTIMATORS, estimator
from budgeteer.adapters.verl.multiple import to_multiple
from budgeteer.adapters.verl.numbers import Numbers, Settings
from budgeteer.core.errors import BudgetExceeded, CheckpointError, InvalidInput, UnknownName
from budgeteer.core.plan import ENDED
from budgeteer.rl import recipes
from helpers import verl_stand_in
from helpers.letters import Letters

torch = pytest.importorskip("torch")
HARD, EASY, MIXED = "hard", "easy", "mixed"
PROMPTS = [f"{kind} {i}" for i, kind in enumerate([HARD, EASY, MIXED, MIXED, EASY, HARD, MIXED, EASY])]
A = np.array


@pytest.fixture(autouse=True)
def warnings_are_logged(monkeypatch):
    """Other tests turn warnings off for good."""
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)


@pytest.fixture
def queue(monkeypatch):
    return verl_stand_in.install(monkeypatch)


def answer(prompt, session):
    """Easy prompts are right, hard ones wrong, mixed ones right every other time; rollout i takes 10 + i tokens."""
    right = prompt.startswith(EASY) or (prompt.startswith(MIXED) and session % 2 == 0)
    return 10 + session, float(right)


def trainer(queue, folder, estimator="budgeteer_grpo", **budgeteer):
    config = verl_stand_in.config(folder, **budgeteer)
    config["algorithm"]["adv_estimator"] = estimator
    manager = importlib.import_module("budgeteer.adapters.verl.manager")
    return verl_stand_in.Trainer(config, manager.BudgetedAgentLoopManager, queue, answer)


# -- whole groups that add up to a multiple ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_the_sum_is_the_largest_multiple_within_plan_and_budget(seed):
    rng = np.random.default_rng(seed)
    n, multiple, least = int(rng.integers(1, 12)), int(rng.integers(1, 9)), int(rng.integers(1, 5))
    units, cost = rng.integers(0, 12, n), rng.integers(1, 30, n).astype(float)
    budget = float(units @ cost) * rng.uniform(0.2, 1.2)
    got = to_multiple(units, cost, budget, multiple, least)
    assert got.sum() % multiple == 0
    assert got.sum() <= units.sum()
    assert ((got == 0) | (got >= least)).all()
    assert not got[units == 0].any()
    assert got @ cost <= budget
    # one multiple more is over the plan, over the budget, or below a group
    bigger = to_multiple(units, np.zeros(n), 0, multiple, least)
    if got.sum() < bigger.sum():
        assert to_multiple(units, cost, 1e9, multiple, least).sum() == bigger.sum()


def test_groups_by_hand():
    ones = np.ones(4)
    assert to_multiple(A([4, 4, 4, 4]), ones, 99, 8, 2).tolist() == [4, 4, 4, 4]
    assert to_multiple(A([8, 4, 2, 0]), ones, 99, 7, 2).tolist() == [8, 4, 2, 0]  # 14 is a multiple already
    # 7 of 14 rollouts: 4, 2, 1 wanted; the last has 2 at least, so the first gives one
    assert to_multiple(A([8, 4, 2, 0]), ones, 13, 7, 2).tolist() == [3, 2, 2, 0]
    # 3 rollouts are one group of 2 or more, and the one that wanted most has it
    assert to_multiple(A([1, 2, 1, 0]), ones, 99, 3, 2).tolist() == [0, 3, 0, 0]
    assert to_multiple(A([1, 2, 0, 0]), ones, 99, 4, 2).tolist() == [0, 0, 0, 0]  # the plan is below one multiple
    assert to_multiple(A([4, 4, 0, 0]), A([1.0, 9, 1, 1]), 39, 4, 2).tolist() == [2, 2, 0, 0]


# -- numbers without verl ----------------------------------------------------------------------------------------------


def numbers(recipe="grpo", **more):
    settings = Settings(recipes.get(recipe), steps=4, group=4, cap=100)
    return Numbers(replace(settings, **more))


def observed(made, keys, units, rate, length):
    """Rollouts of a step: ``rate`` of each prompt's are right."""
    rows = [key for key, n in zip(keys, units, strict=True) for _ in range(n)]
    reward = np.concatenate([(np.arange(n) < round(r * n)).astype(float) for n, r in zip(units, rate, strict=True)])
    m = len(rows)
    made.observe(rows, reward, np.full(m, length), np.full(m, np.nan), np.full(m, ENDED, np.int8))


def test_without_a_budget_groups_are_the_trainers_own():
    assert numbers(multiple=16).plan(list("abcdefgh")).tolist() == [4] * 8


def test_a_budget_is_paced_and_what_was_used_is_deducted():
    made = numbers(budget=4 * 960, multiple=4)  # a rollout is expected to take 60 tokens: 16 a step
    keys = list("abcdefgh")
    first = made.plan(keys)
    assert first.sum() == 16
    observed(made, keys, first, [0.5] * 8, 90)  # but takes 90: 1,440 used, 2,400 left for 3 steps, 8 rollouts of 90
    assert made.plan(keys).sum() == 8
    assert (made.spent.step, made.spent.used, made.spent.rollouts) == (2, 1440, 24)
    assert made.spent.planned == 16 * 60 + 8 * 90


def test_the_worst_case_never_exceeds_a_budget():
    made, keys = numbers(budget=5000, worst_case=True, multiple=2), list("abcdefgh")
    for _ in range(4):
        observed(made, keys, made.plan(keys), [0.5] * 8, 100)
    assert 4000 < made.spent.used <= 5000


def test_a_budget_below_one_multiple_says_what_it_takes(caplog):
    with pytest.raises(BudgetExceeded, match=r"run: .*a step takes 960 tokens at least \(16 rollouts\)"):
        numbers(budget=900, multiple=16).plan(list("abcdefgh"))
    # it buys a step, but by the first guess not one in each of the four
    assert numbers(budget=3800, multiple=16).plan(list("abcdefgh")).sum() == 16
    assert "its share of the budget is 950; unless responses are shorter" in caplog.text
    with pytest.raises(BudgetExceeded, match=r"step: .*a step takes 120 tokens at least"):
        numbers(step_budget=100).plan(["a"])


def test_a_later_step_may_take_more_than_its_share():
    made, keys = numbers(budget=3900, multiple=16), list("abcdefgh")
    observed(made, keys, made.plan(keys), [0.5] * 8, 70)  # 1,120 used; a step takes 1,120 now, and its share is 926
    assert made.plan(keys).sum() == 16
    observed(made, keys, [2] * 8, [0.5] * 8, 70)
    assert made.plan(keys).sum() == 16
    observed(made, keys, [2] * 8, [0.5] * 8, 70)
    assert made.spent.used == 3360
    with pytest.raises(BudgetExceeded, match=r"run: 540 tokens left of 3,900.*3,360 tokens used"):
        made.plan(keys)


def test_an_allocator_moves_rollouts_to_prompts_that_teach():
    made, keys = numbers("grpo:allocator=neyman", budget=4 * 2400, multiple=4, least=2), list("abcd")
    observed(made, keys, made.plan(keys), [0, 1, 0.5, 0.5], 50)
    units = made.plan(keys)
    assert units.sum() % 4 == 0
    assert min(units[2:]) > max(units[:2])


def test_rewards_of_another_range_are_rates():
    made = numbers(low=-1.0)
    made.observe(["a", "a", "b"], A([-1.0, 1.0, 0.5]), A([5, 5, 5]), np.full(3, np.nan), np.full(3, ENDED, np.int8))
    assert made.history.right.tolist() == [1.0, 0.75]


@pytest.mark.parametrize("recipe", ["vip", "grpo:allocator=thompson"])  # the second one has an allocator with a state
def test_state_survives_json(recipe):
    made, keys = numbers(recipe, budget=9600, multiple=4), list("abcd")
    observed(made, keys, made.plan(keys), [0, 1, 0.5, 0.75], 40)
    again = numbers(recipe, budget=9600, multiple=4)
    again.load_state_dict(made.state_dict())
    assert again.plan(keys).tolist() == made.plan(keys).tolist()
    assert again.state_dict() == made.state_dict()


# -- in verl's loop ----------------------------------------------------------------------------------------------------


def test_a_run_in_the_loop(queue, tmp_path):
    run = trainer(queue, tmp_path, recipe="grpo:allocator=neyman", budget="2k")
    assert run.validate(PROMPTS) == [3] * 8  # validation is left alone
    for _ in range(5):
        keys, value = run.train(PROMPTS)
        groups = run.groups[-1]
        assert sum(groups) % 16 == 0
        assert run.padded == 0
        assert all(n == 0 or n >= 2 for n in groups)
        assert len(keys) == len(value) == sum(groups)
        assert value.any()
    made = run.agent_loop_manager.numbers
    assert made.spent.rollouts == sum(map(sum, run.groups))
    assert made.spent.used == sum(n * 10 + n * (n - 1) // 2 for groups in run.groups for n in groups)
    rate = dict(zip(made.history.keys, made.history.right / made.history.rollouts, strict=True))
    assert sorted(rate.values()) == sorted([0.0] * 2 + [1.0] * 3 + [value for value in rate.values() if 0 < value < 1])
    mixed = [i for i, prompt in enumerate(PROMPTS) if prompt.startswith(MIXED)]
    last = run.groups[-1]
    assert min(last[i] for i in mixed) >= max(n for i, n in enumerate(last) if i not in mixed)
    assert not queue.partitions["train"]


@pytest.mark.parametrize("recipe", ["grpo", "vip", "knapsack", "grpo:allocator=neyman"])
def test_recipes_that_only_allocate(queue, tmp_path, recipe):
    run = trainer(queue, tmp_path, recipe=recipe, step_budget="2k")
    for _ in range(3):
        run.train(PROMPTS)
        assert 0 < sum(run.groups[-1]) <= 32
        assert run.padded == 0


def test_it_resumes_as_the_same_run(queue, tmp_path):
    whole = trainer(queue, tmp_path / "whole", recipe="vip", budget="3k")
    for _ in range(4):
        whole.train(PROMPTS)
    broken = trainer(queue, tmp_path / "broken", recipe="vip", budget="3k")
    for _ in range(2):
        broken.train(PROMPTS)
    again = trainer(queue, tmp_path / "broken", recipe="vip", budget="3k")
    again.step = 2
    for _ in range(2):
        again.train(PROMPTS)
    assert again.groups[1:] == whole.groups[3:]
    assert again.agent_loop_manager.numbers.state_dict() == whole.agent_loop_manager.numbers.state_dict()
    with pytest.raises(CheckpointError, match=r"of another run \(tokens: 4000 here, 3000 there\)"):
        trainer(queue, tmp_path / "broken", recipe="vip", budget="4k")


def test_a_checkpoint_without_a_state_is_refused(queue, tmp_path):
    run = trainer(queue, tmp_path)
    run.train(PROMPTS)
    (tmp_path / "global_step_1" / "budgeteer.json").unlink()
    with pytest.raises(CheckpointError, match=r"SaveNumbers, or set trainer\.resume_mode=disable"):
        trainer(queue, tmp_path)
    config = run.config
    config["trainer"]["resume_mode"] = "disable"
    assert type(run.agent_loop_manager)(config=config, llm_client=None).numbers.spent.step == 0


def test_padding_enters_no_statistics(queue, tmp_path):
    run = trainer(queue, tmp_path, "budgeteer_reinforce_plus_plus_baseline", multiple=2, budget=6 * 1320)
    keys, value = run.train(PROMPTS)
    assert run.padded == 10  # 22 rows of 32: the multiple was lowered
    assert len(keys) == 32
    assert not value[-10:].any()
    of_rows = value[:, 0].numpy()
    mixed = of_rows[of_rows != 0]
    np.testing.assert_allclose(np.mean(of_rows[:22] ** 2), 1.0, rtol=1e-6)  # one scale, over the 22 rows
    assert abs(mixed.sum()) < 1e-6


def test_equal_prompts_have_keys_of_their_own(queue):
    manager = importlib.import_module("budgeteer.adapters.verl.manager")
    one, two = [{"role": "user", "content": "1"}], [{"role": "user", "content": "2"}]
    first = manager.keys_of([one, two, one, np.array(one, object)])
    assert len(set(first)) == 4
    assert manager.keys_of([two, one]) == [first[1], first[0]]


def test_parts_of_a_session_are_one_rollout(queue, tmp_path):
    """An agent loop may give several outputs a session; the tokens are those of all, the reward is the last one's."""
    run = trainer(queue, tmp_path)
    manager = run.agent_loop_manager
    manager._waiting = {"u": "key"}
    for part, (length, reward) in enumerate([(3, 0.25), (100, 1.0)]):
        scores = torch.zeros(length)
        scores[-1] = reward
        queue.put("train", f"u_0_{part}", {"rm_scores": scores, "response_mask": torch.ones(length)}, {})
    queue.put("train", "u", {}, {"is_prompt": True})
    queue.put("train", "v_0_0", {}, {})  # a prompt of nobody
    manager.collect()
    assert (manager.numbers.history.right.tolist(), manager.numbers.spent.used) == ([1.0], 103)


def test_a_step_of_which_nothing_was_learnt_is_said(queue, tmp_path, caplog):
    run = trainer(queue, tmp_path)
    run.agent_loop_manager.generate_sequences(run.batch(PROMPTS))
    assert not caplog.text
    run.agent_loop_manager.generate_sequences(run.batch(PROMPTS))
    assert "no advantages were computed of the step before" in caplog.text


def test_registration_is_done_by_the_import_and_once(queue):
    package = importlib.import_module("budgeteer.adapters.verl")
    algos = sys.modules["verl.trainer.ppo.core_algos"]
    names = {f"budgeteer_{name}" for name in ESTIMATORS}
    assert set(algos.ADV_ESTIMATOR_REGISTRY) == names
    assert set(algos.POLICY_LOSS_REGISTRY) == {"budgeteer_gspo"}
    importlib.reload(package)
    assert set(algos.ADV_ESTIMATOR_REGISTRY) == names


def test_an_import_without_verl_imports_neither_verl_nor_torch():
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'verl' else find(name, *more)\n"
        "import budgeteer.adapters.verl\n"
        "assert not {'torch', 'verl'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_failing_registration_is_not_silent(queue, caplog):
    """verl logs it at DEBUG, which nobody sees."""
    algos = sys.modules["verl.trainer.ppo.core_algos"]
    del algos.register_adv_est
    with pytest.raises(AttributeError):
        importlib.import_module("budgeteer.adapters.verl")
    assert "verl has no estimators of budgeteer" in caplog.text


@pytest.mark.parametrize(
    ("where", "value", "error", "message"),
    [
        ("trainer.v1.trainer_mode", "separate_async", InvalidInput, r"trainer\.v1\.trainer_mode=sync"),
        ("trainer.use_v1", False, InvalidInput, r"trainer\.use_v1=true"),
        ("trainer.v1.sampler.sync_refill_failed_groups", True, InvalidInput, "refills are outside of any plan"),
        ("trainer.checkpoint_callback_class", None, InvalidInput, "SaveNumbers"),
        ("algorithm.filter_groups.enable", True, InvalidInput, r"filter_groups\.enable=false"),
        ("algorithm.adv_estimator", "grpo", InvalidInput, "choose one of budgeteer_grpo"),
        ("actor_rollout_ref.actor.optim.total_training_steps", -1, InvalidInput, r"set trainer\.total_training_steps"),
        ("budgeteer.recipe", "duet", InvalidInput, "steer, thin, token_weight, which verl decides"),
        ("budgeteer.recipe", "gspo", InvalidInput, "token_weight, loss, which verl decides"),
        ("budgeteer.recipe", "grpa", UnknownName, "did you mean 'grpo'"),
        ("budgeteer.budget", "50%", InvalidInput, "give a number of generated tokens"),
        ("budgeteer.multiple", 0, InvalidInput, "whole number from 1"),
        ("budgeteer.low", 1.0, InvalidInput, "give the rewards of a wrong and a right rollout"),
        ("budgeteer.budgte", 3, UnknownName, "did you mean 'budget'"),
    ],
)
def test_what_is_refused(queue, tmp_path, where, value, error, message):
    config = verl_stand_in.config(tmp_path)
    *parts, last = where.split(".")
    place = config
    for part in parts:
        place = place[part]
    place[last] = value
    manager = importlib.import_module("budgeteer.adapters.verl.manager")
    with pytest.raises(error, match=message):
        manager.BudgetedAgentLoopManager(config=config, llm_client=None)


def test_a_data_set_that_has_numbers_itself_is_refused(queue, tmp_path):
    run = trainer(queue, tmp_path)
    with pytest.raises(InvalidInput, match="has a field __rollout_n__"):
        run.agent_loop_manager.generate_sequences(run.batch(PROMPTS, __rollout_n__=[1] * 8))


def test_grpo_without_a_deviation_is_named_otherwise(queue):
    importlib.import_module("budgeteer.adapters.verl")
    estimate = sys.modules["verl.trainer.ppo.core_algos"].ADV_ESTIMATOR_REGISTRY["budgeteer_grpo"]
    with pytest.raises(InvalidInput, match="budgeteer_dr_grpo"):
        estimate(torch.ones(1, 1), torch.ones(1, 1), ["a"], {"norm_adv_by_std_in_grpo": False})


# -- rewards -----------------------------------------------------------------------------------------------------------

KIMI = {"budgeteer_reward": "kimi", "budgeteer_max_tokens": 4}


def estimate_with(config, tokens, mask, index, name="budgeteer_dr_grpo"):
    importlib.import_module("budgeteer.adapters.verl")
    return sys.modules["verl.trainer.ppo.core_algos"].ADV_ESTIMATOR_REGISTRY[name](tokens, mask, index, config)[0]


def test_a_reward_is_what_advantages_are_made_of_by_hand(queue):
    # kimi: lengths 1, 3, 2 -> 1/2, -1/2, 0, of which wrong rows keep what is not above 0:
    # right 1.5 and 0.5, wrong 0; mean 2/3; the last row is padding, the other prompt is alone
    mask = torch.tensor([[1.0, 0, 0], [1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
    tokens = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]])
    got = estimate_with(KIMI, tokens, mask, A(list("aaaba"), object))
    expected = mask * torch.tensor([1.5 - 2 / 3, 0.5 - 2 / 3, -2 / 3, 0, 0])[:, None]
    assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["kimi", "o1-pruner", "alp", "shorter-better", "cosine", "overlong", "kimi+overlong"])
def test_rewards_have_the_numbers_of_trl(queue, name):
    trl = pytest.importorskip("budgeteer.adapters.trl")
    rng = np.random.default_rng(len(name))
    length, right = rng.integers(1, 41, 12), rng.integers(0, 2, 12) * 1.0
    prompts = [f"p{i % 3}" for i in range(12)]
    other = trl.reward(name, max_tokens=40, right=lambda **columns: right.tolist())
    expected = other(prompts=prompts, completions=["x"] * 12, completion_ids=[[1] * n for n in length.tolist()])
    mask = torch.from_numpy((np.arange(40) < length[:, None]) * 1.0)
    module = importlib.import_module("budgeteer.adapters.verl.rewarding")
    config = {"budgeteer_reward": name, "budgeteer_max_tokens": 40}
    got = module.rewarded(torch.from_numpy(right)[:, None] / 40 * torch.ones(12, 40), mask, prompts, config)
    assert got.sum(-1).tolist() == pytest.approx(expected)
    assert (got[mask == 0] == 0).all()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"budgeteer_reward": "kimi"}, "budgeteer_max_tokens"),
        (KIMI | {"use_kl_in_reward": True}, "use_kl_loss"),
        (KIMI | {"budgeteer_reward": "pear"}, "entropy"),
        (KIMI | {"budgeteer_reward": "traac"}, "answered"),
        (KIMI | {"budgeteer_max_tokens": 0}, "max_tokens=0 .*give tokens, 1 or more"),
        (KIMI | {"budgeteer_max_tokens": "many"}, "max_tokens='many' .*give tokens, 1 or more"),
    ],
)
def test_what_a_reward_cannot_have_from_verl_is_named(queue, config, said):
    with pytest.raises(InvalidInput, match=said):
        estimate_with(config, torch.ones(2, 1), torch.ones(2, 1), A(["a", "a"], object))


def test_scores_that_are_not_from_0_to_1_are_refused(queue):
    with pytest.raises(InvalidInput, match="-1 to 1"):
        estimate_with(KIMI, torch.tensor([[-1.0], [1]]), torch.ones(2, 1), A(["a", "a"], object))
    with pytest.raises(InvalidInput, match="gave nan"):
        estimate_with(KIMI, torch.tensor([[math.nan], [1]]), torch.ones(2, 1), A(["a", "a"], object))


def test_a_cap_that_a_row_is_longer_than_is_refused(queue):
    with pytest.raises(InvalidInput, match=r"max_tokens=4 .*a row has 5 tokens"):
        estimate_with(KIMI, torch.ones(2, 5) / 5, torch.ones(2, 5), A(["a", "a"], object))


# -- rewards that read rows --------------------------------------------------------------------------------------------


SAID = [
    "wait, wait </think>4",
    "so </think>four",
    "</think>4",
    "I wait </think> \\boxed{4}",
    "hm, wait",
    "4",
    "no, no, no, no, no, no, no, no, no, no, no, no",
]
"""Responses of each prompt, by session; the last one is as long as it may be."""
CAP = len(SAID[-1])


def rewarding(queue, folder, reward, right=lambda session: session % 2 == 0, more=None, **changed):
    """The trainer with that reward; session i of a prompt says ``SAID[i]``."""
    config = verl_stand_in.config(folder)
    config.pop("budgeteer")
    config["algorithm"] |= {"budgeteer_reward": reward, "budgeteer_max_tokens": CAP} | changed
    config["algorithm"]["adv_estimator"] = "budgeteer_dr_grpo"
    config["actor_rollout_ref"]["rollout"]["n"] = len(SAID)
    config["actor_rollout_ref"]["model"] = type("Model", (), {"tokenizer": Letters()})
    manager = importlib.import_module("budgeteer.adapters.verl.manager")
    run = verl_stand_in.Trainer(
        config, manager.RewardingAgentLoopManager, queue, lambda prompt, i: (len(SAID[i]), float(right(i)))
    )

    def fields(messages, session, length):
        ids = torch.tensor(list(map(ord, SAID[session])))
        entropy = torch.linspace(0.1, 1.0, length) * (1 + session)
        return {"responses": ids, "entropy": entropy, "extra_info": {}, **(more or {})}

    run.agent_loop_manager.more = fields
    return run


NEW = ["arlcp", "pear", "adathink-med", "traac", "repetition", "laser", "adacot", "e1", "kimi+0.5*repetition", "hbpo"]


@pytest.mark.parametrize("name", NEW)
def test_rewards_that_read_rows_have_the_numbers_of_our_rollouts(queue, tmp_path, name):
    """Against the reward itself on columns that are made here from the same texts, over two steps of a state."""
    from budgeteer.core import registry
    from budgeteer.core.plan import CUT
    from budgeteer.rl.reward.protocol import Columns

    given = {"effort": 0.5, "needs_thinking": 1, "target": 12.0}
    run = rewarding(queue, tmp_path, name, more={"extra_info": given})
    prompts, n = ["a", "b"], len(SAID)
    length = np.array([len(text) for text in SAID] * 2)
    width = int(length.max())
    closed = np.array([text.find("</think>") + 8 if "</think>" in text else -1 for text in SAID] * 2)
    answered = np.array([len(text) if "boxed" in text else -1 for text in SAID] * 2)
    tokens = np.array([[*map(ord, text), *[0] * (width - len(text))] for text in SAID] * 2)
    entropy = np.full(tokens.shape, np.nan)
    for i, own in enumerate(length.tolist()):
        entropy[i, :own] = np.linspace(0.1, 1.0, own) * (1 + i % n)
    correct = np.array([i % 2 == 0 for i in range(n)] * 2) * 1.0
    columns = {
        "closed": closed, "answered": answered, "tokens": tokens, "entropy": entropy, "text": SAID * 2,
        "sampled": (np.arange(width) < length[:, None]) * 1, "prompt_key": ["a"] * n + ["b"] * n,
        **{key: [value] * 2 * n for key, value in given.items()},
    }  # fmt: skip
    method = registry.part_of("reward", name)
    state = method.init()
    for _ in range(2):
        rows = Columns(correct, length, np.repeat([0, 1], n), [CAP] * 2 * n, np.where(length >= CAP, CUT, ENDED))
        rows = rows.completed(method.needs, columns)
        value, state = method.score(state, rows), method.observe(state, rows)
        wanted = value - np.repeat(value.reshape(2, n).mean(1), n)
        _, got = run.train(prompts)
        assert got.shape[1] == width
        np.testing.assert_allclose(got[: 2 * n, 0], wanted, atol=1e-5)
    assert np.ptp(value) > 0


def test_a_reward_with_a_state_goes_on_from_a_checkpoint(queue, tmp_path):
    whole = rewarding(queue, tmp_path / "whole", "laser")
    for _ in range(2):
        whole.train(["a", "b"])
    parts = rewarding(queue, tmp_path / "parts", "laser")
    parts.train(["a", "b"])
    (tmp_path / "parts" / "latest_checkpointed_iteration.txt").write_text("1")
    again = rewarding(queue, tmp_path / "parts", "laser")
    again.step = 1
    again.train(["a", "b"])
    states = [run.agent_loop_manager.reader.state_dict() for run in (whole, again)]
    assert states[0] == states[1] != parts.agent_loop_manager.reader.state_dict()
    with pytest.raises(CheckpointError, match="another run"):
        rewarding(queue, tmp_path / "parts", "laser:target=0.4")


def test_a_reward_without_a_state_needs_nothing_of_a_checkpoint(queue, tmp_path):
    (tmp_path / "global_step_1").mkdir()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("1")
    assert rewarding(queue, tmp_path, "arlcp").agent_loop_manager.reader.state_dict() == {}


def test_a_state_that_checkpoints_would_lose_is_refused(queue, tmp_path):
    config = verl_stand_in.config(tmp_path)
    config["trainer"]["checkpoint_callback_class"] = None
    config["algorithm"] |= {"budgeteer_reward": "laser", "budgeteer_max_tokens": CAP}
    manager = importlib.import_module("budgeteer.adapters.verl.manager")
    with pytest.raises(InvalidInput, match="the state of its reward"):
        manager.RewardingAgentLoopManager(config=config, llm_client=None)


def test_the_budgeted_manager_reads_rows_as_well(queue, tmp_path):
    run = trainer(queue, tmp_path, recipe="grpo:allocator=neyman", budget="2k")
    run.config["algorithm"] |= {"budgeteer_reward": "hbpo", "budgeteer_max_tokens": 100}
    run.agent_loop_manager.more = lambda messages, session, length: {"responses": torch.ones(length), "target": 12.0}
    _, value = run.train(PROMPTS)
    assert value.any()
    assert run.agent_loop_manager.numbers.spent.used > 0


def test_a_column_of_the_data_set_comes_before_extra_info(queue, tmp_path):
    made = []
    for more in ({"effort": 0.25}, {"effort": 0.25, "extra_info": {"effort": 1.0}}, {"extra_info": {"effort": 1.0}}):
        made.append(rewarding(queue, tmp_path / str(len(made)), "e1", more=more).train(["a"])[1])
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [("e1", None, "effort.*extra_info.*say it in the prompt"), ("pear", {"entropy": None}, "bypass mode")],
)
def test_a_column_that_nobody_gives_is_named(queue, tmp_path, name, more, said):
    run = rewarding(queue, tmp_path, name, more=more)
    if more:
        fields = run.agent_loop_manager.more
        run.agent_loop_manager.more = lambda *a: {k: v for k, v in fields(*a).items() if k not in more}
    with pytest.raises(InvalidInput, match=said):
        run.train(["a"])


def test_tokens_that_the_policy_did_not_sample_are_not_read(queue, tmp_path):
    """Results of tools stand in the response and not in the mask."""
    rows = importlib.import_module("budgeteer.adapters.verl.rows")
    there = {
        "responses": [torch.tensor([97, 98, 99, 100])], "response_mask": [torch.tensor([1, 0, 0, 1])],
        "entropy": [torch.tensor([0.5, 9.0, 9.0, 0.25])], "raw_prompt": [["x"]],
    }  # fmt: skip
    reader = rows.Reader(lambda keys, fields: there, Letters)
    made = reader.columns("pear", ["tokens", "sampled", "entropy", "text", "offsets"], ["k"])
    assert made["tokens"].tolist() == [[97, 100]]
    assert made["entropy"].tolist() == [[0.5, 0.25]]
    assert (made["text"].tolist(), made["offsets"].tolist()) == (["ad"], [[1, 2]])


def test_only_what_is_read_is_fetched_and_computed_columns_are_not_taken_from_the_data_set(queue):
    rows = importlib.import_module("budgeteer.adapters.verl.rows")
    asked = []
    reader = rows.Reader(
        lambda keys, fields: asked.append(set(fields)) or {"target": [3.0], "repeated": [9.0]}, Letters
    )
    assert reader.columns("hbpo", ["target"], ["k"]) == {"target": [3.0]}
    assert asked == [{"target", "extra_info"}]
    assert reader.columns("repetition", ["repeated"], ["k"]) == {}


def test_keys_are_noted_only_while_advantages_are_computed(queue):
    rows = importlib.import_module("budgeteer.adapters.verl.rows")
    base = sys.modules["verl.trainer.ppo.v1.trainer_base"]
    seen = []
    base.compute_advantage_for_multi_trajectories = lambda data, batch_keys, **more: seen.append(list(rows.KEYS))
    for _ in range(2):
        rows.note_keys(base)
    base.compute_advantage_for_multi_trajectories(None, batch_keys=["a", "b"], gamma=1.0)
    assert (seen, rows.KEYS) == ([["a", "b"]], [])
    assert not isinstance(base.compute_advantage_for_multi_trajectories.compute, rows.Noting)


def test_another_version_of_verl_is_refused(queue):
    rows = importlib.import_module("budgeteer.adapters.verl.rows")
    with pytest.raises(InvalidInput, match=r"install verl 0\.9"):
        rows.note_keys(sys.modules["verl.trainer.ppo"])


# -- estimators --------------------------------------------------------------------------------------------------------


def test_grpo_by_hand():
    # rewards 1, 0, 0, 1: mean 1/2, deviation of a sample sqrt(1/3); alone, all equal and padded rows have nothing
    reward = torch.tensor([1.0, 1, 0, 0, 1, 1, 1, 0, 0])
    mask = torch.tensor([[1, 1, 0]] * 7 + [[1, 0, 0], [0, 0, 0]])
    tokens = torch.zeros(9, 3)
    tokens[:, 0] = reward
    index = np.array(list("abaaaccdd"), object)
    value, returns = estimator(ESTIMATORS["grpo"])(tokens, mask, index, config=None)
    a = 0.5 / np.sqrt(1 / 3)
    np.testing.assert_allclose(value[:, 0], [a, 0, -a, -a, a, 0, 0, 0, 0], rtol=1e-6)
    assert (value == returns).all()
    assert not value[mask == 0].any()
    assert value.dtype == torch.float32


def test_an_estimator_needs_an_index():
    with pytest.raises(InvalidInput, match="no index of prompts"):
        estimator("rloo")(torch.ones(2, 2), torch.ones(2, 2))
