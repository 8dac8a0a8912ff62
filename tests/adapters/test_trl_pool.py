"""Rollouts that call other models: what they are charged, what they learn from, and the paper's reward."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import sys
from functools import partial
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from transformers.utils import get_json_schema  # noqa: E402

from budgeteer.adapters.trl import BudgetedGRPOTrainer  # noqa: E402
from budgeteer.adapters.trl.pool import Pool, well_formed  # noqa: E402
from budgeteer.agent.pool import Helper  # noqa: E402
from budgeteer.check.scripted import Scripted  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.ledger import Allowance, Limit, MemoryLedger  # noqa: E402
from helpers.trl_tiny import TEMPLATE, config, scripted, tiny  # noqa: E402


def helper(name: str, says: str, price: int, **more: object) -> Helper:
    """One whose prompt is the query alone; the scripted model counts a token a character."""
    return Helper(name, Scripted(lambda prompt, rng: says), "Knows.", price, 10, ask=lambda query: query, **more)


def called(name: str, query: object = "2 + 2?") -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': {'query': query}})}\n</tool_call>"


def ask(rollout, name, query="2 + 2?"):
    return asyncio.run(getattr(rollout, name)(query))


def test_a_helper_is_the_same_tool_in_training_as_when_it_serves():
    pool = Pool([helper("small", "4", 1), helper("the-large.1", "4", 9)])
    rollout = pool()
    for one in pool.helpers:
        assert get_json_schema(getattr(rollout, one.name)) == one.tool().schema()


def test_calls_are_charged_what_they_used_and_refused_where_the_longest_answer_does_not_fit():
    pool = Pool([helper("small", "four", 1000), helper("large", "It is 4.", 50_000)], "all:39, tool:large:1", calls=3)
    rollout = pool()
    assert ask(rollout, "small") == "four"
    assert pool.left == {"all": 39 - 6 - 4, "tool:large": 1}
    assert ask(rollout, "large") == "It is 4."
    assert pool.left == {"all": 29 - 6 - 8, "tool:large": 0}
    assert ask(rollout, "large") == "[large was not called: the budget is spent; go on without it]"
    assert ask(rollout, "small") == "[small was not called: there were 3 calls, the most; answer now]"
    assert (rollout._calls, rollout._cost) == (3, 4 * 1000 + 8 * 50_000)
    other = pool()
    said = ask(other, "small")  # 16 tokens to be reserved, 15 left
    assert said == "[small was not called: the budget is spent; go on without it]"
    assert pool.made == {"small": 1, "large": 1}
    assert pool.refused == 2
    rollout.reset(prompt="x")
    assert (rollout._calls, rollout._cost) == (0, 0)


def test_money_and_a_shared_allowance():
    ledger = MemoryLedger()
    ledger.open("team", [Limit("money", 600_000)])
    pool = Pool([helper("large", "It is 4.", 50_000)], Allowance(ledger, "team", {"money": 600_000}))
    assert ask(pool(), "large") == "It is 4."
    assert pool.left == {"money": 600_000 - 8 * 50_000}
    assert "not called" in ask(pool(), "large")  # its longest answer costs 500,000


def test_a_helper_that_fails_or_hangs_is_charged_its_longest_answer_and_read_as_a_text():
    class Hanging(Scripted):
        async def generate(self, request):
            await asyncio.sleep(60)

    broken = Helper("broken", Scripted(lambda prompt, rng: 1 / 0), "Knows.", 3, 10, ask=lambda query: query)
    slow = Helper("slow", Hanging(lambda prompt, rng: ""), "Knows.", 3, 10, ask=lambda query: query)
    pool = Pool([broken, slow], "all:1000", patience=0.05)
    rollout = pool()
    assert ask(rollout, "broken").startswith("[broken failed: ZeroDivisionError")
    assert ask(rollout, "slow") == "[slow gave no answer within 0.05 s; go on without it]"
    assert (rollout._cost, pool.left["all"]) == (2 * 10 * 3, 1000 - 2 * (6 + 10))


def test_pools_that_cannot_be_are_refused():
    one = helper("one", "x", 1)
    for given, more, why in [
        ([], {}, "no model to call"),
        ([one, one], {}, "several helpers"),
        ([helper("reset", "x", 1)], {}, "TRL calls 'reset' itself"),
        ([one], {"calls": 0}, "calls=0; give 1 or more"),
        ([one], {"patience": 0}, "seconds above 0"),
        ([one], {"budget": "1k/day"}, "has a window"),
        ([one], {"budget": "50%"}, "is a share"),
    ]:
        with pytest.raises(InvalidInput, match=why):
            Pool(given, **more)
    with pytest.raises(InvalidInput, match="none of this pool"):
        Pool([one]).reward(max_tokens=9, tokenizer=None)(["p"], ["c"], [[1]], answer=["4"])


ANSWER = {"role": "assistant", "content": "The answer is 4."}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "small"}}]}


@pytest.mark.parametrize(
    ("messages", "formed"),
    [
        ([ANSWER], True),
        ([CALL, {"role": "tool", "content": "4"}, ANSWER], True),
        ([CALL, {"role": "tool", "content": "[small failed: TimeoutError]"}, ANSWER], True),  # not the caller's fault
        ([CALL, {"role": "tool", "content": str({"error": "Tool smal not found."})}, ANSWER], False),
        ([CALL], False),
        ([CALL, {"role": "tool", "content": "4"}], False),
        ([{"role": "assistant", "content": '<tool_call>\n{"name": oops'}], False),
        ([{"role": "assistant", "content": " "}], False),
        ([], False),
    ],
)
def test_the_format(messages, formed):
    assert well_formed(messages) is formed


class Words:
    """A tokenizer of which the reward reads the end of a sequence and texts."""

    eos_token_id, chat_template = 0, ""

    def __len__(self):
        return 10

    def batch_decode(self, ids, skip_special_tokens):
        return ["" for _ in ids]


def test_the_paper_s_reward_by_hand():
    """Costs 0, 40, 80, 40 and 80 thousand: right and free, right and dear, wrong, broken, cut."""
    pool = Pool([helper("small", "four", 10_000), helper("large", "It is 4.", 10_000)])
    rollouts = [pool() for _ in range(5)]
    ask(rollouts[1], "small")
    ask(rollouts[2], "large")
    ask(rollouts[3], "small")
    ask(rollouts[4], "large")
    wrong = {"role": "assistant", "content": "The answer is 5."}
    made = [[ANSWER], [CALL, ANSWER], [CALL, wrong], [CALL], [CALL, ANSWER]]
    score = pool.reward(max_tokens=9, tokenizer=Words(), weight=0.4)
    metrics = {}
    got = score(
        ["p"] * 5, made, [[1, 0], [1, 0], [1, 0], [1, 0], [1, 1]], environments=rollouts, answer=["4"] * 5,
        log_metric=metrics.__setitem__,
    )  # fmt: skip
    x = [0, math.sqrt(40_000), math.sqrt(80_000), math.sqrt(40_000), math.sqrt(80_000)]
    low, high = 0.2 * x[1], x[2]  # the quantile of 5 % stands 0.2 of the way from the first of five to the second
    cheap = [1.0, 1 - (x[1] - low) / (high - low)]
    assert got == pytest.approx([0.6 + 0.4 * cheap[0], 0.6 + 0.4 * cheap[1], 0.0, -1.0, -1.0])
    assert metrics == {
        "helpers/calls": 0.8, "helpers/cost": 48_000, "helpers/formed": 0.6, "helpers/refused": 0.0,
        **{name: value for name, value in metrics.items() if name.startswith("router-r1")},
    }  # fmt: skip
    assert len(score.inner.state) == 5
    other = pool.reward(max_tokens=9, tokenizer=Words(), weight=0.4)
    other.load_state_dict(score.state_dict())
    assert other.inner.state.tolist() == score.inner.state.tolist()


def test_two_steps_of_training_learn_from_the_policy_s_own_tokens_alone(tmp_path):
    import transformers

    torch.set_num_threads(1)
    folder = tiny(tmp_path / "tiny", positions=2048)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": 1017}))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    pool = Pool([helper("small", "It is four.", 1000), helper("large", "It is 4.", 50_000)], "all:400, $1")
    masks = []

    class Watching(BudgetedGRPOTrainer):
        def _compute_loss(self, model, inputs):
            masks.append((inputs["completion_ids"], inputs["tool_mask"], inputs["completion_mask"]))
            return super()._compute_loss(model, inputs)

    data = Dataset.from_list([{"prompt": [{"role": "user", "content": f"{a} + 3?"}], "answer": "4"} for a in range(6)])
    trainer = Watching(
        str(folder), reward_funcs=pool.reward(max_tokens=260, tokenizer=tokenizer), train_dataset=data,
        args=config(tmp_path, max_steps=2, max_completion_length=260), processing_class=tokenizer,
        environment_factory=pool, recipe="grpo", budget=20_000,
    )  # fmt: skip
    texts = [called("small"), called("large"), "The answer is 4.", "The answer is 5.", called("none")]
    trainer.model.generate = partial(scripted, texts, tokenizer, trainer.eos_token_ids[0])
    trainer.train()
    spoken = [tokenizer.decode(ids[(own * whole) == 1]) for ids, own, whole in masks]
    read = [tokenizer.decode(ids[(own == 0) & (whole == 1)]) for ids, own, whole in masks]
    assert any("It is 4." in text for text in read)
    assert not any("It is 4." in text for text in spoken)
    assert all(count > 0 for count in pool.made.values())
    assert 0 <= pool.left["all"] < 400
    assert pool.left["money"] == 10**12 - sum(one.cost for one in pool.helpers)
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert {"helpers/calls", "helpers/cost", "helpers/formed"} <= rows[0].keys()
    assert -1 <= rows[0]["rewards/router-r1/mean"] <= 1


def test_the_example_shows_calls_in_the_tokens_that_a_rollout_has():
    """What is read before the answer begins with what was read and written for the call: TRL goes on from that."""
    import random

    import transformers
    from trl.chat_template_utils import parse_response, qwen3_template

    from budgeteer.models.thinker import THINKER

    path = Path(__file__).parents[2] / "examples" / "trl_router_r1.py"
    spec = importlib.util.spec_from_file_location("trl_router_r1", path)
    example = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = example  # where dataclasses look for their annotations
    spec.loader.exec_module(example)
    tokenizer = transformers.AutoTokenizer.from_pretrained(THINKER)
    tokenizer.response_template = qwen3_template
    asked = example.questions(6, 1)
    assert [one.modular for one in asked] == [True, False] * 3
    assert asked == example.questions(6, 1) != example.questions(6, 2)
    tools = [helper(name, "4", 1).tool().schema() for name in ("sums", "words")]
    turns = example.shown(tokenizer, asked, tools, random.Random(0))
    assert len(turns) == 12
    for one, call, answer in zip(asked, turns[::2], turns[1::2], strict=True):
        assert answer[0][: len(call[0]) + len(call[1])] == [*call[0], *call[1]]
        (made,) = parse_response(tokenizer, call[1], prefix=call[0], tools=tools)["tool_calls"]
        assert made["function"]["name"] in ("sums", "words")
        assert made["function"]["arguments"] == {"query": one.text}
        assert example.answer_of(tokenizer.decode(answer[1], skip_special_tokens=True)).startswith("The answer is ")
    assert example.answer_of("no idea") == "I do not know."
