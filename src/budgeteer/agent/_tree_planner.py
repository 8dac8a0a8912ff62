"""Tree-Planner: plans are sampled once and merged into a tree; the model is asked again only where they part.

Paper: "Tree-Planner: Efficient Close-loop Task Planning with Large Language Models", arXiv 2310.08582; only its
abstract and notes of others were to be had, so the texts of the prompts are chosen here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from budgeteer.agent.turns import FAILED, Agent, Turns, limits_of
from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import ToolCall
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.solve.strategy import TOOLS
from budgeteer.solve.tool import Tool, written
from budgeteer.strategies.kit.trace import aside, ask, ask_many

PLAN = """Plan how to answer the question with these tools. Write calls of tools only, one a line, each as
NAME {{"argument": "value"}}

Tools:
{tools}

Question: {question}
Plan:
"""
CHOOSE = """Question: {question}
Done so far:
{work}
Which comes next?
{options}
Write its number.
Number:"""
ANSWER = "answer the question now"
_LINE = re.compile(r"^[\s\-*]*(?:\d+[.)]\s*)?([a-zA-Z0-9][a-zA-Z0-9_.-]*)\s*(\{.*\})\s*$")


@dataclass(slots=True)
class Node:
    """A place in the tree of actions.

    Attributes:
        call: that leads here; None at the root.
        plans: that go through here.
        ends: plans that end here.
        children: by their call, in the order in which they were first seen.
        dead: whether the call failed, or all that follows it did.
    """

    call: ToolCall | None = None
    plans: int = 0
    ends: int = 0
    children: dict[str, Node] = field(default_factory=dict)
    dead: bool = False

    @property
    def living(self) -> list[Node]:
        """The children that may still be tried."""
        return [child for child in self.children.values() if not child.dead]


def tree_planner(
    plans: int = 8,
    steps: int = 12,
    plan_tokens: int = 128,
    choice_tokens: int = 8,
    step_tokens: int = 256,
    result: int = 2000,
    temperature: float = 0.8,
) -> Strategy:
    """Sample plans, merge those that begin alike, and follow the tree with the results in view.

    1. One request asks for ``plans`` plans; its prompt, with the schemas of the tools, is paid once. A plan is a list
       of calls of tools; lines that are no such call are left out.
    2. Plans become a tree, equal beginnings merged.
    3. From the root on: where one call can follow, it is made without asking. Where several can, or a plan ends, the
       model is asked for a number, with question, results and options as its only input. A call that fails is dead,
       and so is a place whose calls all are: the agent goes back to the nearest place with another one.
    4. Where a plan ends, or nothing is left, the model answers with all results before it.

    Tokens of input, with P for the long prompt and p for a choice: P + decisions p, where ReAct has about turns P. With
    one plan there is nothing to choose and nothing to go back to.

    Differences from the paper: calls are not undone, so tools should only look things up; a number that cannot be read
    is the call of most plans.

    Helps when many steps can be foreseen and their order tells little. Does not where a call needs the result of an
    earlier one: no plan can contain it, and no branch leads there.

    Args:
        plans: to sample.
        steps: most calls of tools.
        plan_tokens: most tokens of a plan.
        choice_tokens: most tokens of a choice.
        step_tokens: most tokens of the last answer.
        result: most characters of a tool's result.
        temperature: of the plans; choices are greedy.
    """
    if min(plans, steps, plan_tokens, choice_tokens) < 1:
        raise InvalidInput(
            f"tree-planner:plans={plans},steps={steps},plan_tokens={plan_tokens},choice_tokens={choice_tokens}; each "
            "is at least 1"
        )
    limits = limits_of(step_tokens, result, temperature)

    async def solve(task: Task) -> Answer:
        agent = Agent(task, replace(limits, temperature=0.0))
        told = PLAN.format(tools="\n".join(map(described, task.tools)), question=task.question.text)
        sampled = await ask_many(
            task, aside(task, told), plans, most=plan_tokens, keep=task.style.answer_tokens, stop=(),
            temperature=temperature, stage="plan",
        )  # fmt: skip
        tree = tree_of(calls_of(piece.text, agent.tools) for piece in sampled)
        turns, by = await _followed(task, agent, tree, steps, choice_tokens)
        return await agent.conclude(turns, by)

    return Strategy(solve, frozenset({TOOLS}))


async def _followed(task: Task, agent: Agent, tree: Node, steps: int, most: int) -> tuple[Turns, StoppedBy]:
    """The calls that were made on the way through the tree, with their results, and why there is no further one."""
    path = [tree]
    turns: Turns = ()
    for number in range(steps):
        while not path[-1].living and not path[-1].ends and len(path) > 1:
            path.pop().dead = True
        options = path[-1].living
        if options and (len(options) > 1 or path[-1].ends):
            node = await _chosen(task, agent, turns, path[-1], most, number)
        else:
            node = options[0] if options else None
        if node is None or node.call is None:
            return turns, StoppedBy.DONE
        turn = await agent.act(turns, node.call)
        if turn is None:
            return turns, StoppedBy.BUDGET
        turns = (*turns, turn)
        node.dead = bool(FAILED.match(turn.results[0]))
        if not node.dead:
            path.append(node)
    return turns, StoppedBy.CAP


async def _chosen(task: Task, agent: Agent, turns: Turns, node: Node, most: int, number: int) -> Node | None:
    """The child that the model chooses; None to answer. Without room for the question, or without a number, the choice
    of most plans."""
    options = node.living
    lines = [f"{child.call.name} {written(child.call.arguments or {})}" for child in options if child.call is not None]
    if node.ends:
        lines.append(ANSWER)
    text = CHOOSE.format(
        question=task.question.text, work=agent.text(turns).strip() or "nothing",
        options="\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1)),
    )  # fmt: skip
    prompt, said = aside(task, text), ""
    if agent.fits(prompt, most, turns):
        said = (await ask(task, prompt, most=most, stop=(), temperature=0.0, stage="choice", at=number)).text
    found = re.search(r"\d+", said)
    if found and 1 <= int(found[0]) <= len(lines):
        return options[int(found[0]) - 1] if int(found[0]) <= len(options) else None
    best = max(options, key=lambda child: child.plans)
    return best if best.plans >= node.ends else None


def described(tool: Tool) -> str:
    """A tool in one line.

    >>> described(Tool("look", "Looks.", {"at": {"type": "string"}}, None))
    'look {"at": string}: Looks.'
    """
    arguments = ", ".join(f'"{name}": {kind.get("type", "any")}' for name, kind in tool.parameters.items())
    return f"{tool.name} {{{arguments}}}: {tool.about}"


def calls_of(text: str, tools: Mapping[str, Tool]) -> tuple[ToolCall, ...]:
    """The calls of a plan, line by line; lines that are no call of a tool, with arguments that fit it, are left out.

    >>> tool = Tool("look", "", {"at": {"type": "string"}}, None)
    >>> calls_of('1. look {"at": "x"}\\nThen:\\n- look {"in": "y"}\\n- hear {}', {"look": tool})
    (ToolCall(name='look', arguments={'at': 'x'}),)
    """
    found = []
    for line in text.splitlines():
        match = _LINE.match(line)
        tool = tools.get(match[1]) if match else None
        if match is None or tool is None:
            continue
        try:
            arguments = json.loads(match[2])
        except (ValueError, RecursionError):
            continue
        if isinstance(arguments, dict) and not tool.wrong(arguments):
            found.append(ToolCall(tool.name, arguments))
    return tuple(found)


def tree_of(plans: Iterable[Sequence[ToolCall]]) -> Node:
    """Plans as a tree, equal beginnings merged; plans without calls are left out.

    >>> a, b, c = (ToolCall("look", {"at": at}) for at in "abc")
    >>> tree = tree_of([(a, b), (a, c), (a,), ()])
    >>> tree.plans, [(child.plans, child.ends, len(child.children)) for child in tree.children.values()]
    (3, [(3, 1, 2)])
    """
    root = Node()
    for plan in filter(None, plans):
        node = root
        node.plans += 1
        for call in plan:
            node = node.children.setdefault(f"{call.name} {written(call.arguments or {})}", Node(call))
            node.plans += 1
        node.ends += 1
    return root
