"""Other models as tools of a policy that TRL trains: rollouts that route parts of a question, under one budget.

Paper: "Router-R1: Teaching LLMs Multi-Round Routing and Aggregation via Reinforcement Learning", arXiv 2506.09033.
What a called model answers stands in the rollout as a tool's result: read, without gradient. The paper's tags are calls
of tools here, in the form that :func:`budgeteer.agent.pool.tools_of` serves the trained policy with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from budgeteer.adapters.trl.rewarding import RewardFunction, reward
from budgeteer.agent.pool import QUERY, Helper, tools_of
from budgeteer.core.amounts import MONEY
from budgeteer.core.budget import Budgets
from budgeteer.core.errors import BudgetExceeded, InvalidInput
from budgeteer.core.meter import meter
from budgeteer.core.usage import Usage
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import Request
from budgeteer.rl.reward.counted import split
from budgeteer.solve.styles import stated

CALL = "<tool_call>"
"""What a call that could not be read leaves in a text."""
_FAILED = "{'error': "
"""How TRL begins the text of a call that it could not make."""
_TAKEN = frozenset({"reset", "get_reward"})


class Pool:
    """Candidate models under one budget: give it as ``environment_factory``, and :meth:`reward` among ``reward_funcs``.

    Each rollout has an environment of its own, with one tool a model, whose argument is the part of the question that
    the model is asked. A call reserves the tokens of its prompt and its longest answer, and is charged what it used;
    one that the budget does not cover is not made, and the policy reads that. The policy's own tokens are in the
    trainer's budget.

    Args:
        helpers: the models; two or more make a choice.
        budget: of all calls of the run, absolute, such as ``"200k, tool:large:50"``: tokens read and written, money (by
            each helper's price of output), calls. Or an allowance, such as one of a shared ledger. None = no limit.
        calls: most calls of a rollout, as in the paper; a further one is not made.
        patience: seconds after which a call is given up.

    Attributes:
        made: name of a helper -> calls that were made.
        refused: calls that were not, for lack of budget.

    Raises:
        InvalidInput: there is no helper, two have one name, one has a name that TRL needs, or a number is out of range.
    """

    def __init__(
        self,
        helpers: Sequence[Helper],
        budget: str | Allowance | None = None,
        *,
        calls: int = 4,
        patience: float = 120.0,
    ) -> None:
        tools_of(helpers, patience)  # which refuses what is no pool
        if taken := [helper.name for helper in helpers if helper.name in _TAKEN]:
            raise InvalidInput(f"TRL calls {taken[0]!r} itself; give that helper another name")
        if calls < 1:
            raise InvalidInput(f"calls={calls}; give 1 or more, or train without tools")
        self.helpers, self.calls, self.patience = tuple(helpers), calls, patience
        self._allowance = _allowance(budget) if isinstance(budget, str) else budget
        self.made = dict.fromkeys((helper.name for helper in helpers), 0)
        self.refused = 0
        self._kind = type("Rollout", (_Rollout,), {helper.name: _method(helper) for helper in helpers})

    def __call__(self) -> _Rollout:
        """A rollout's environment."""
        made: _Rollout = self._kind(self)
        return made

    @property
    def left(self) -> dict[str, int]:
        """Units by kind that calls may still spend; empty without a budget."""
        return {} if self._allowance is None else self._allowance.remaining

    async def asked(self, helper: Helper, query: str) -> tuple[str, int]:
        """What a helper answers, or a text that says why it does not, and the tokens that it wrote."""
        request = Request(helper.ask(query), helper.max_tokens, temperature=0.0)
        if self._allowance is None:
            return await self._answered(helper, request)
        inputs = helper.model.count(request.prompt)
        try:
            async with self._allowance.reserve(self._units(helper, inputs, helper.max_tokens)) as held:
                text, tokens = await self._answered(helper, request)
                held.settle(self._units(helper, inputs, tokens), operation="execute_tool", tool=helper.name)
        except BudgetExceeded:
            self.refused += 1
            return f"[{helper.name} was not called: the budget is spent; go on without it]", 0
        return text, tokens

    async def _answered(self, helper: Helper, request: Request) -> tuple[str, int]:
        self.made[helper.name] += 1
        try:
            async with asyncio.timeout(self.patience):
                response = await helper.model.generate(request)
        except TimeoutError:
            text = f"[{helper.name} gave no answer within {self.patience:g} s; go on without it]"
            return text, helper.max_tokens  # what it wrote is not known
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return f"[{helper.name} failed: {said}]", helper.max_tokens
        tokens = helper.max_tokens if response.usage.output is None else response.usage.output
        helper.spent.append(tokens)
        return helper.read(response.choices[0].text) or "[no answer]", tokens

    def _units(self, helper: Helper, inputs: int, output: int) -> dict[str, int]:
        counts = {"tool": 1, f"tool:{helper.name.lower()}": 1, "turns": 1}
        used = {kind: 0 for kind in self.left if kind.startswith("tool:")} | counts
        usage = Usage(input=inputs, output=output, counts=tuple(used.items()))
        return {kind: helper.price * output if kind == MONEY else meter(kind)(usage) for kind in self.left}

    def reward(
        self, *, max_tokens: int, tokenizer: Any, weight: float = 0.3, window: int = 1000, **options: Any
    ) -> Callable[..., list[float | None]]:
        """The paper's reward as a function of TRL: -1 for a broken format, 0 for a wrong answer, else answer and cost.

        A rollout keeps to the format if each of its calls could be read and made, and it ends by itself with a text
        that states an answer. Its cost is the sum over its calls of tokens written times the helper's price; see the
        reward ``router-r1``. TRL's log gets ``helpers/calls`` (a rollout), ``helpers/cost``, ``helpers/formed`` and
        ``helpers/refused`` (of the run).

        Args:
            max_tokens: ``max_completion_length`` of the trainer.
            tokenizer: of the policy.
            weight: of cheapness, 0 to 1; 0 looks at answers alone.
            window: rollouts whose costs are remembered.
            options: of :func:`budgeteer.adapters.trl.reward`: which answer is right, and what ends a sequence.
        """
        name = f"router-r1:weight={weight},window={window}"
        return _Reward(self, reward(name, max_tokens=max_tokens, tokenizer=tokenizer, **options))


class _Rollout:
    """The calls of one rollout; its methods without an underscore, one a helper, are its tools."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._calls = self._cost = 0

    def reset(self, **columns: Any) -> None:
        """Begin a rollout."""
        self._calls = self._cost = 0

    async def _ask(self, helper: Helper, query: Any) -> str:
        if not isinstance(query, str):
            raise TypeError(f"query is {query!r:.60}, no string")
        if self._calls >= self._pool.calls:
            return f"[{helper.name} was not called: there were {self._calls} calls, the most; answer now]"
        self._calls += 1
        text, tokens = await self._pool.asked(helper, query)
        self._cost += tokens * helper.price
        return text


def _method(helper: Helper) -> Callable[..., Any]:
    """A helper as a method, whose schema TRL makes from its docstring: that of :meth:`Helper.tool`."""

    async def ask(self: _Rollout, query: Any) -> Any:
        return await self._ask(helper, query)

    ask.__name__ = ask.__qualname__ = helper.name
    ask.__doc__ = f"{helper.tool().about}\n\nArgs:\n    query: {QUERY}\n"
    ask.__annotations__ = {"query": str}
    return ask


class _Reward:
    """TRL's reward function of a pool."""

    def __init__(self, pool: Pool, inner: RewardFunction) -> None:
        self._pool, self.inner, self.__name__ = pool, inner, "router-r1"

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        environments: Sequence[_Rollout] | None = None,
        **more: Any,
    ) -> list[float | None]:
        if environments is None or not all(isinstance(one, _Rollout) for one in environments):
            raise InvalidInput("the rollouts are none of this pool; give it to the trainer as environment_factory")
        cost = [float(one._cost) for one in environments]
        formed = [
            int(bool(ids) and ids[-1] in self.inner.ends and well_formed(written))
            for written, ids in zip(completions, map(list, completion_ids), strict=True)
        ]
        if "log_metric" in more:
            told = {
                "calls": sum(one._calls for one in environments) / len(cost), "cost": sum(cost) / len(cost),
                "formed": sum(formed) / len(formed), "refused": float(self._pool.refused),
            }  # fmt: skip
            for name, value in told.items():
                more["log_metric"](f"helpers/{name}", value)
        given = {**more, "called_cost": cost, "well_formed": formed}
        return self.inner(prompts=prompts, completions=completions, completion_ids=completion_ids, **given)

    def state_dict(self) -> dict[str, str]:
        """The remembered costs, which are not in TRL's checkpoints."""
        return self.inner.state_dict()

    def load_state_dict(self, content: Mapping[str, str]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.inner.load_state_dict(content)


def well_formed(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the messages of a rollout keep to the format: calls that were made, and an answer at the end.

    >>> ask = {"role": "assistant", "tool_calls": [{"function": {"name": "small", "arguments": {}}}]}
    >>> answer = {"role": "assistant", "content": "The answer is 4."}
    >>> well_formed([ask, {"role": "tool", "content": "4"}, answer]), well_formed([ask])
    (True, False)
    >>> well_formed([ask, {"role": "tool", "content": "{'error': 'Tool smal not found.'}"}, answer])
    False
    """
    if any(message["role"] == "tool" and str(message["content"]).startswith(_FAILED) for message in messages):
        return False
    written = [message for message in messages if message["role"] == "assistant"]
    texts = [str(message.get("content") or "") for message in written]
    if not written or messages[-1]["role"] != "assistant" or any(CALL in text for text in texts):
        return False
    return not written[-1].get("tool_calls") and stated(split(texts[-1])[1]) is not None


def _allowance(text: str) -> Allowance:
    """A budget as it is written, in the memory of this process."""
    amounts = {}
    for budget in Budgets.parse(text):
        if budget.amount is None or budget.window is not None:
            raise InvalidInput(f"the budget {budget} of a pool is a share or has a window; give an amount")
        amounts[budget.kind] = budget.amount
    ledger = MemoryLedger()
    ledger.open("pool", [Limit(kind, units) for kind, units in amounts.items()])
    return Allowance(ledger, "pool", amounts)


__all__ = ["Pool", "well_formed"]
