"""Rewards as reward functions of TRL: the numbers of our own trainer on the same rollouts, and TRL's loop with them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import transformers  # noqa: E402
from datasets import Dataset  # noqa: E402
from trl import GRPOTrainer  # noqa: E402

from budgeteer.adapters.trl import reward  # noqa: E402
from budgeteer.core import registry  # noqa: E402
from budgeteer.core.errors import InvalidInput, UnknownName  # noqa: E402
from budgeteer.engine.llama import load  # noqa: E402
from budgeteer.rl import recipes  # noqa: E402
from budgeteer.rl.control import Control  # noqa: E402
from budgeteer.rl.logprobs import entropies  # noqa: E402
from budgeteer.rl.recipe import ENTROPY  # noqa: E402
from budgeteer.verify import names  # noqa: E402
from budgeteer.verify.sandbox import Sandbox  # noqa: E402
from helpers.trl_tiny import DATA, config, scripted, tiny, trained  # noqa: E402

GIVEN = ("effort", "needs_thinking", "target")
LABELLED = DATA.map(
    lambda row: {"effort": 0.25 * (1 + row["n"]), "needs_thinking": row["n"] % 2, "target": 4.0 + row["n"]}
)
TEXTS = [
    "<think>\nso 3\n</think>\n\n\\boxed{3}",
    "<think>\nWait, check: but 4\n\nHmm, 5\n</think>\n\n\\boxed{4}",
    "<think>\n1\n</think>\n\nwait, actually \\boxed{5}",
    "\\boxed{7}",
    "[Easy]<think>\n2+2\n</think>\n\n\\boxed{4}",
    "[Hard]<think>\nfirst 2\n\nthen 3\n</think>\n\n4",
    "<think>\n" + "1 2 3 4 5 6 7 8 9 " * 6,
]
"""What the rollouts say: with and without thinking, tags, hesitation, a leak, a complete answer, and an end."""
NAMES = sorted(
    name
    for name, method in registry.of("reward").items()
    if method.path.startswith("budgeteer.") and ENTROPY not in registry.part_of("reward", name).needs
)


CAP, END = 40, 1017
PLAIN = ("router-r1",)
"""Rewards that are the score alone where nobody gives the columns that they read."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return tiny(tmp_path_factory.mktemp("tiny"))


def even(completion_ids, n, **columns):
    """A score in {0, 1/2, 1} of the rollout and its prompt; nothing for every seventh."""
    said = [sum(ids) + a for ids, a in zip(completion_ids, n, strict=True)]
    return [None if total % 7 == 0 else total % 3 / 2 for total in said]


def always(completion_ids, **columns):
    return [1.0] * len(completion_ids)


@pytest.fixture(scope="module")
def steps(folder, tmp_path_factory):
    """Rollouts of two steps of our trainer for TRL, with the texts of their prompts."""
    out = tmp_path_factory.mktemp("steps")
    seen, tokenizer = [], transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = END
    learn = Control.learn

    def spy(self, rollouts, view, lost=0):
        seen.append(rollouts)
        return learn(self, rollouts, view, lost)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Control, "learn", spy)
        patch.setattr(
            transformers.LlamaForCausalLM, "generate", lambda model, **given: scripted(TEXTS, tokenizer, END, **given)
        )
        size = {"per_device_train_batch_size": 16, "num_generations": 8, "max_completion_length": CAP}
        trained(
            model, config(out, max_steps=2, **size), recipe="grpo:reward=arlcp+laser", close="</think>",
            train_dataset=LABELLED, reward_funcs=[even], processing_class=tokenizer,
        )  # fmt: skip
    assert len(seen) == 2
    assert {len(set(rollouts.closed.tolist())) > 2 for rollouts in seen} == {True}
    return seen


@pytest.mark.parametrize("name", [*NAMES, "kimi+0.5*laser"])
def test_the_numbers_are_those_of_our_trainer(folder, steps, name) -> None:
    """The same rollouts, through ``Control``'s columns and through TRL's arguments, over two steps of the state."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    function = reward(name, max_tokens=CAP, tokenizer=tokenizer, right=even, close="</think>", ends=[END])
    own, state, varied = registry.part_of("reward", name), None, 0.0
    for rollouts in steps:
        scored = rollouts.take(~np.isnan(rollouts.verified))
        at = np.array([int(key) for key in scored.keys])[scored.group]
        prompts = {field: np.array(LABELLED[field])[at] for field in GIVEN}
        columns = scored.columns(own.needs, prompts)
        state = own.init() if state is None else state
        want = own.score(state, columns)
        state = own.observe(state, columns)
        every = np.array([int(key) for key in rollouts.keys])[rollouts.group]
        rows = {field: [LABELLED[field][i] for i in every.tolist()] for field in ("prompt", "n", *GIVEN)}
        ids = [row[:n].tolist() for row, n in zip(rollouts.tokens, rollouts.length, strict=True)]
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        got = function(prompts=rows.pop("prompt"), completions=texts, completion_ids=ids, **rows)
        assert [value is None for value in got] == np.isnan(rollouts.verified).tolist()
        np.testing.assert_allclose([value for value in got if value is not None], want, atol=1e-12)
        varied = max(varied, np.abs(want - scored.verified).std())
    assert varied > 0 or name in PLAIN, "this reward was the score alone, plus a constant: nothing was compared"


def test_rewards_of_entropies_are_those_of_our_trainer(folder, tmp_path) -> None:
    """What a reward function of TRL cannot read; our trainer for TRL has it from TRL's forward pass."""
    other = sorted(set(registry.of("reward")) - set(NAMES))
    assert other == ["adathink-med", "ares", "pear"]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.lm_head.weight, model.config.tie_word_embeddings = model.model.embed_tokens.weight, True
    model.save_pretrained(tmp_path / "tied")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "tied")
    seen = []

    def kept(reward):
        def score(state, columns):
            seen.append((columns, reward.score(state, columns)))
            return seen[-1][1]

        return reward._replace(score=score, terms=None)

    for name in other:
        own = registry.part_of("reward", name)
        recipe = replace(recipes.get("grpo"), reward=kept(own))
        rollouts = []
        with pytest.MonkeyPatch.context() as patch:
            learn = Control.learn
            patch.setattr(Control, "learn", lambda self, *given: (rollouts.append(given[0]), learn(self, *given))[1])  # noqa: B023
            trained(
                tmp_path / "tied", config(tmp_path, temperature=0.45, max_steps=1), recipe=recipe, close="",
                train_dataset=LABELLED, reward_funcs=[even],
            )  # fmt: skip
        scored = rollouts[0].take(~np.isnan(rollouts[0].verified))
        ours = replace(scored, entropy=entropies(load(tmp_path / "tied"), scored, 0.45))
        want = own.score(own.init(), ours.columns(own.needs))
        columns, got = seen[-1]
        assert len(np.unique(got.round(4))) > 1
        np.testing.assert_allclose(columns.column("entropy", name), ours.entropy, atol=1e-4)
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_trl_trains_with_it_and_logs_its_terms(folder, tmp_path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    function = reward("kimi+overlong:share=0.5", max_tokens=12, tokenizer=tokenizer, right=even)
    made = trained(folder, config(tmp_path, max_steps=2), kind=GRPOTrainer, reward_funcs=[function])
    rows = [row for row in made.state.log_history if "loss" in row]
    for row in rows:
        terms = [row[f"{function.__name__}/{term}"] for term in ("kimi", "overlong")]
        assert sum(terms) == pytest.approx(row[f"rewards/{function.__name__}/mean"], abs=1e-5)


def test_a_monitor_has_its_rollouts_beside_those_that_trl_sees(folder, tmp_path) -> None:
    watched, learnt = [], []
    with pytest.MonkeyPatch.context() as patch:
        watch, learn = Control.watch, Control.learn
        patch.setattr(Control, "watch", lambda self, *given: (watched.append(given), watch(self, *given))[1])
        patch.setattr(Control, "learn", lambda self, *given: (learnt.append(given[0]), learn(self, *given))[1])
        made = trained(
            folder, config(tmp_path, max_steps=2), recipe="grpo:reward=laser:monitor=3", close="",
            reward_funcs=[always],
        )  # fmt: skip
    ((rollouts, lost),) = watched  # 20 steps lie between two of them
    assert rollouts.counts.tolist() == [8, 8, 8]
    assert len(learnt) == 2
    assert made.spending.progress.used >= rollouts.used + lost + sum(each.used for each in learnt)
    assert made.spending.reward_state.target.min() < 1


def test_the_state_goes_on_where_it_was_kept(folder) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def fresh():
        return reward("laser", max_tokens=12, tokenizer=tokenizer, right=lambda completions, **_: [1.0] * 4, close="")

    said = {"prompts": ["a"] * 4, "completions": ["b"] * 4, "completion_ids": [[5] * n for n in (2, 3, 4, 9)]}
    first, second = fresh(), fresh()
    assert (first.state.target == 1).all()
    first(**said)
    assert first.state.target[0] < 1  # all are right: the band of easy prompts
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert first(**said) == second(**said)


def test_a_completion_is_compared_with_the_reference_of_the_data_set() -> None:
    function = reward("kimi:weight=0", max_tokens=99)
    said = ["<think>5</think>It is \\boxed{4}", "The answer is 5."]
    chats = [[{"role": "assistant", "content": text}] for text in said]
    for completions in (said, chats):
        got = function(
            prompts=["2+2?", "2+2?"], completions=completions, completion_ids=[[1], [2]], answer=["4", 4]
        )  # fmt: skip
        assert got == [1.0, 0.0]
    with pytest.raises(InvalidInput, match="no column 'answer'"):
        function(prompts=["a"], completions=["b"], completion_ids=[[1]])


def test_a_verifier_that_hangs_raises_or_dies_costs_its_answer_and_not_the_run(tmp_path, monkeypatch) -> None:
    """It would end this process, or hold it up for ever, if it ran in it."""
    file = tmp_path / "mine.py"
    file.write_text(
        "import os, time\n\n\ndef verify(answer, reference):\n    if answer == '1':\n        time.sleep(3600)\n"
        "    if answer == '2':\n        os._exit(1)\n    if answer == '3':\n        raise ValueError('of mine')\n"
        "    return float(answer == reference)\n"
    )
    monkeypatch.setattr(names, "Sandbox", partial(Sandbox, seconds=1.0))
    function, told = reward("kimi:weight=0", max_tokens=99, verifier=f"python:{file}"), {}
    said = {"prompts": ["?"] * 5, "completions": ["1", "2", "3", "4", "5"], "completion_ids": [[1]] * 5}
    with pytest.warns(UserWarning, match=r"took more than 1 s on reference '1'; 3 of 5 answers count 0"):
        got = function(**said, answer=["1", "2", "3", "4", "4"], log_metric=told.__setitem__)
    assert got == [0.0, 0.0, 0.0, 1.0, 0.0]
    assert told["kimi:weight=0/verifier_failures"] == 3.0
    with pytest.raises(InvalidInput, match="there is no such file"):
        reward("kimi", max_tokens=99, verifier=f"python:{tmp_path}/other.py")


def test_equal_prompts_with_keys_of_their_own_are_groups_of_their_own() -> None:
    function = reward("kimi", max_tokens=99, right=lambda completions, **_: [1.0, 1.0])
    said = {"prompts": ["a", "a"], "completions": ["b", "c"], "completion_ids": [[1], [1, 2]]}
    assert function(**said) == [1.5, 0.5]
    assert function(**said, key=[1, 2]) == [1.0, 1.0]


def test_what_cannot_be_had_is_refused_when_the_function_is_made() -> None:
    with pytest.raises(InvalidInput, match="reads the entropy of each token"):
        reward("pear", max_tokens=9)
    with pytest.raises(InvalidInput, match="give the model's tokenizer"):
        reward("kimi+laser", max_tokens=9)
    with pytest.raises(InvalidInput, match="leave monitor out"):
        reward("laser:monitor=4", max_tokens=9)
    with pytest.raises(InvalidInput, match="max_completion_length"):
        reward("kimi", max_tokens=0)
    with pytest.raises(InvalidInput, match="close=5; give the text"):
        reward("kimi", max_tokens=9, close=5)
    with pytest.raises(InvalidInput, match="answer=''; give the regular expression"):
        reward("kimi", max_tokens=9, answer="")
    with pytest.raises(UnknownName, match="did you mean 'kimi'"):
        reward("kimy", max_tokens=9)
    labels = reward("thinkdial", max_tokens=9, right=lambda completions, **_: [1.0])
    with pytest.raises(InvalidInput, match="column 'effort'"):
        labels(prompts=["a"], completions=["b"], completion_ids=[[1]])


def test_what_it_is_given_is_refused_in_one_sentence() -> None:
    said = {"prompts": ["a"] * 2, "completions": ["1", "2"], "completion_ids": [[1], [2]]}
    with pytest.raises(InvalidInput, match="column 'answer' has 1 reference answers for 2 completions"):
        reward("kimi", max_tokens=9)(**said, answer=["1"])
    with pytest.raises(InvalidInput, match="'right of kimi' returned 1 values for 2 completions"):
        reward("kimi", max_tokens=9, right=lambda **given: [1.0])(**said)
    with pytest.raises(InvalidInput, match=r"'right of kimi' returned .* return a list with a number, or None"):
        reward("kimi", max_tokens=9, right=lambda **given: ["yes", "no"])(**said)
    with pytest.raises(InvalidInput, match=r"reads the column 'target' of rollouts .* nobody gave it"):
        reward("l1", max_tokens=9)(**said, answer=["1", "2"])
    assert reward("l1", max_tokens=9)(**said, answer=["1", "2"], target=[1, 4]) == pytest.approx([1, 1 - 1.2 / 3])
    for short in ({"target": [1]}, {"target": [1, 4], "key": ["a"]}):
        with pytest.raises(InvalidInput, match="has 1 values for 2 completions; give one for each"):
            reward("l1", max_tokens=9)(**said, answer=["1", "2"], **short)
    with pytest.raises(InvalidInput, match="max_tokens='64'; give max_completion_length"):
        reward("kimi", max_tokens="64")


def test_data_sets_become_columns() -> None:
    data = Dataset.from_list([{"prompt": "a", "answer": "4", "effort": 0.25}])
    function = reward("thinkdial:leak=0", max_tokens=99)
    row = data[0]
    got = function(
        prompts=[row["prompt"]] * 2, completions=["4", "It is 4"], completion_ids=[[1], [2, 3]],
        answer=[row["answer"]] * 2, effort=[row["effort"]] * 2,
    )  # fmt: skip
    assert got == [1.5, 0.5]


def test_what_is_counted_in_a_text_is_never_taken_from_the_data_set() -> None:
    """A data set may have a column of such a name; what models cost that a rollout called, only its trainer knows."""
    texts = ["Wait, wait. Wait</think>4", "</think>4"]
    said = {"prompts": ["a"] * 2, "completions": texts, "completion_ids": [[1, 1, 1], [2]]}

    def scored(name: str, **columns: list[int]) -> list[float | None]:
        return reward(name, max_tokens=9, right=lambda **given: [1.0, 1.0])(**said, **columns)

    assert scored("arlcp", reflections=[0, 7]) == scored("arlcp")
    assert scored("router-r1:weight=0.5") == [0.75, 0.75]
    assert scored("router-r1:weight=0.5", called_cost=[0, 4]) == [1.0, 0.5]


def test_a_recipe_reads_columns_of_the_data_set_too(folder, tmp_path) -> None:
    """Modes of effort stand in the data set; without them the same recipe is refused."""
    settings = {"recipe": "grpo:reward=thinkdial+adacot", "reward_funcs": [even]}
    made = trained(folder, config(tmp_path, max_steps=1), train_dataset=LABELLED, **settings)
    (row,) = made.spending.progress.steps_log
    assert {*row["terms"]} == {"thinkdial", "adacot"}
    logged = next(row for row in made.state.log_history if "loss" in row)
    assert logged["budget/reward/thinkdial"] == pytest.approx(row["terms"]["thinkdial"])
    with pytest.raises(InvalidInput, match="column 'effort'"):
        trained(folder, config(tmp_path, max_steps=1), train_dataset=DATA, **settings)
