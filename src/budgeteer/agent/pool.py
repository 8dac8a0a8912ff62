"""Other models as tools of an agent: a model that reasons asks a cheaper, a larger or a specialised one.

Paper: "Router-R1: Teaching LLMs Multi-Round Routing and Aggregation via Reinforcement Learning", arXiv 2506.09033.
There a trained model writes which model is to answer which sub-question, at most four times, and puts the answers
together. Here the models are tools, so that any agent with calls of tools does so, and any of its budgets holds:
``react:turns=4`` is the paper's loop. It is trained by :class:`budgeteer.adapters.trl.pool.Pool`, with the reward
``router-r1``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import Chat, Message, Prompt
from budgeteer.models.model import Model, Request
from budgeteer.solve.tool import Tool

ASK = """Another model works on a question and asks you for a part of it. Answer in a few sentences, or give the facts
that help. If you do not know, say so.

{query}"""
"""What a called model is asked."""
QUERY = "what it is asked"
"""What the caller is told of a tool's argument."""


def as_chat(query: str) -> Prompt:
    """A sub-question as a chat, for models with a chat template."""
    return Chat((Message("user", ASK.format(query=query)),))


@dataclass(slots=True)
class Helper:
    """A model that may be called.

    Attributes:
        name: as the caller writes it: letters, digits, ``_``, ``.`` and ``-``.
        model: text in, text out.
        about: what it is good at and what it costs, for the caller.
        price: pico-dollars a token of output.
        max_tokens: most tokens of an answer.
        ask: sub-question -> prompt.
        read: what the model wrote -> what the caller reads, such as without its thinking.
        spent: tokens of output of each call so far.
    """

    name: str
    model: Model
    about: str
    price: int = 0
    max_tokens: int = 512
    ask: Callable[[str], Prompt] = as_chat
    read: Callable[[str], str] = str.strip
    spent: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.price < 0 or self.max_tokens < 1:
            raise InvalidInput(
                f"helper {self.name}: price={self.price}, max_tokens={self.max_tokens}; give 0 or more, and 1 or more"
            )

    @property
    def cost(self) -> int:
        """Pico-dollars of all calls so far, by the tokens that they wrote."""
        return sum(self.spent) * self.price

    def tool(self, patience: float = 120.0) -> Tool:
        """The helper as a tool.

        A call is charged under ``money`` what its longest answer costs, since a tool has one price; :attr:`cost` says
        what it really came to.

        Args:
            patience: seconds after which a call is given up.
        """

        async def answer(arguments: Mapping[str, Any]) -> str:
            request = Request(self.ask(str(arguments["query"])), self.max_tokens, temperature=0.0)
            response = await self.model.generate(request)
            (choice,) = response.choices
            self.spent.append(response.usage.output or 0)
            return self.read(choice.text) or "[no answer]"

        about = f"Ask the model {self.name}: {self.about}"
        price = self.price * self.max_tokens
        query = {"query": {"type": "string", "description": QUERY}}
        return Tool(self.name, about, query, answer, cost=price, patience=patience)


def tools_of(helpers: Sequence[Helper], patience: float = 120.0) -> tuple[Tool, ...]:
    """Helpers as the tools of a task.

    Args:
        helpers: two or more pay; one is a cascade without a choice.
        patience: seconds after which a call is given up.

    Raises:
        InvalidInput: there is no helper, two have one name, or patience is no number of seconds above 0.
    """
    names = [helper.name for helper in helpers]
    if not names:
        raise InvalidInput("there is no model to call; give at least one helper")
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidInput(f"several helpers are called {min(twice)!r}; give each a name of its own")
    if not 0 < patience < math.inf:
        raise InvalidInput(f"patience is {patience}; give seconds above 0")
    return tuple(helper.tool(patience) for helper in helpers)
