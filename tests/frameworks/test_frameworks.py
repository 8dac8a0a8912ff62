"""Frameworks that take a wrapped OpenAI client: what they make the provider bill is what is charged.

They come in an environment of their own: ``make test-frameworks``.
"""

from __future__ import annotations

import operator
from typing import Annotated, TypedDict

import pytest

pytestmark = pytest.mark.frameworks
openai = pytest.importorskip("openai")

from budgeteer.adapters.openai import wrap  # noqa: E402
from budgeteer.core.errors import BudgetExceeded  # noqa: E402
from budgeteer.ledger import Allowance, Limit, MemoryLedger  # noqa: E402
from budgeteer.metering.estimate import Bounds  # noqa: E402
from helpers.answers import chat, sse, used  # noqa: E402
from helpers.upstream import Upstream  # noqa: E402

USAGE = used(12, 2)
BOUNDS = Bounds(max_output=50)


class Metered:
    """A wrapped client on a ledger of its own."""

    def __init__(self, url, limit=100_000):
        self.ledger = MemoryLedger()
        self.ledger.open("app", [Limit("all", limit)])
        client = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
        self.client = wrap(client, Allowance(self.ledger, "app", {"all": limit}), kinds=("all",), bounds=BOUNDS)

    @property
    def charged(self):
        """Units that are settled; nothing may be held once every call is over."""
        book = self.ledger.snapshot()[1].accounts["app"].books["all"]
        assert book.held == 0
        return book.spent


def langchain_model(metered, **more):
    """LangChain's model on a wrapped client."""
    chat_openai = pytest.importorskip("langchain_openai").ChatOpenAI
    client = metered.client
    return chat_openai(
        model="gpt-4o", api_key="x", client=client.chat.completions, root_client=client, max_tokens=50, **more
    )


def test_langchain():
    with Upstream(chat(usage=USAGE)) as provider:
        metered = Metered(provider.url)
        model = langchain_model(metered)
        assert model.invoke("Hello").content == "Hello there"
        assert [said.content for said in model.batch(["a", "b"])] == ["Hello there"] * 2
        assert (metered.charged, len(provider.requests)) == (3 * 14, 3)


def test_langchain_stream():
    with Upstream(sse(["Hello ", "there"], used(12, 2))) as provider:
        metered = Metered(provider.url)
        text = "".join(str(piece.content) for piece in langchain_model(metered, stream_usage=True).stream("Hello"))
        assert (text, metered.charged) == ("Hello there", 14)


def test_langchain_beyond_the_budget():
    with Upstream(chat(usage=USAGE)) as provider:
        metered = Metered(provider.url, limit=20)
        with pytest.raises(BudgetExceeded):
            langchain_model(metered).invoke("Hello")
        assert (metered.charged, provider.requests) == (0, [])


def test_langgraph():
    graph = pytest.importorskip("langgraph.graph")

    class State(TypedDict):
        said: Annotated[list[str], operator.add]

    with Upstream(chat(usage=USAGE)) as provider:
        metered = Metered(provider.url)
        model = langchain_model(metered)

        def ask(state):
            return {"said": [str(model.invoke("Hello").content)]}

        made = graph.StateGraph(State)
        made.add_node("first", ask)
        made.add_node("second", ask)
        made.add_edge(graph.START, "first")
        made.add_edge("first", "second")
        made.add_edge("second", graph.END)
        assert made.compile().invoke({"said": []})["said"] == ["Hello there"] * 2
        assert (metered.charged, len(provider.requests)) == (2 * 14, 2)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_litellm(stream):
    litellm = pytest.importorskip("litellm")
    script = sse(["Hello ", "there"], used(12, 2)) if stream else chat(usage=USAGE)
    with Upstream(script) as provider:
        metered = Metered(provider.url)
        more = {"stream_options": {"include_usage": True}} if stream else {}
        found = litellm.completion(
            model="openai/gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}], client=metered.client,
            max_tokens=50, stream=stream, num_retries=0, **more,
        )  # fmt: skip
        text = (
            "".join(part.choices[0].delta.content or "" for part in found if part.choices)
            if stream
            else found.choices[0].message.content
        )
        assert (text, metered.charged, len(provider.requests)) == ("Hello there", 14, 1)
