"""Codified plans: the model writes its plan as a small program over tools, which is run here without asking it again.

Paper: "CodeAgents: A Token-Efficient Framework for Codified Multi-Agent Reasoning in LLMs", arXiv 2507.03254; only its
abstract and a summary of others were to be had, so the texts of the prompts and the language are chosen here.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from budgeteer.agent.turns import FAILED, Agent, Turn, Turns, cut, limits_of
from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import ToolCall
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.solve.strategy import TOOLS
from budgeteer.solve.tool import Tool
from budgeteer.strategies.kit.trace import aside, ask

PLAN = """Write a program in Python that finds out what the question needs. Use only these functions, assignments, if,
for over a list, f-strings, +, in, ==, and, or, not. Do not define or import anything.

{tools}
def ask(text: str) -> str:  # a short answer of a reader to a text

Question: {question}
{feedback}Program:
"""
_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict"}
_FENCE = re.compile(r"```(?:python)?\n(.*?)(?:```|\Z)", re.DOTALL)
_MOST = 500
"""Expressions that are evaluated at most between two calls."""
_DEEPEST = 60
"""Parts within parts of a program, at most."""
_LARGEST = 100_000
"""Characters of a text, at most, where each entry of a list counts as 100: a program could double one in every line."""


class PlanError(Exception):
    """What is wrong with a program, for the next plan: kind, line, text."""

    def __init__(self, kind: str, line: int, text: str) -> None:
        super().__init__(f'error(kind="{kind}", line={line}, text={text[:200]!r})')


class _Stop(Exception):
    """The program ends: it returned, or the budget does not cover its next call."""

    def __init__(self, by: StoppedBy) -> None:
        super().__init__(by)
        self.by = by


@dataclass(slots=True)
class _Run:
    """A program that runs: the calls that were made, with their results, and what each name holds."""

    task: Task
    agent: Agent
    steps: int
    ask_tokens: int
    turns: Turns = ()
    names: dict[str, Any] = field(default_factory=dict)
    calls: int = 0
    evaluated: int = 0

    async def body(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            await self.statement(statement)

    async def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.names[name] = await self.value(value)
            case ast.Expr(value=value):
                await self.value(value)
            case ast.If(test=test, body=body, orelse=other):
                await self.body(body if await self.value(test) else other)
            case ast.For(target=ast.Name(id=name), iter=items, body=body, orelse=[]):
                given = await self.value(items)
                if not isinstance(given, list):
                    raise PlanError("type", node.lineno, "for goes over a list")
                for item in given:
                    self.names[name] = item
                    await self.body(body)
            case ast.Return():
                raise _Stop(StoppedBy.DONE)
            case ast.Pass():
                pass
            case _:
                raise PlanError("syntax", node.lineno, f"{type(node).__name__} is not allowed")

    async def value(self, node: ast.expr) -> Any:
        self.evaluated += 1
        if self.evaluated > _MOST:
            raise PlanError("limit", node.lineno, f"more than {_MOST} expressions without a call")
        match node:
            case ast.Constant(value=str() | int() | float() | bool() | None):
                if not _plain(node.value):
                    raise PlanError("value", node.lineno, "numbers have 64 bits at most, and texts are Unicode")
                return node.value
            case ast.Name(id=name):
                if name not in self.names:
                    raise PlanError("name", node.lineno, f"{name} has no value")
                return self.names[name]
            case ast.List(elts=parts):
                return _bounded([await self.value(part) for part in parts], node.lineno)
            case ast.JoinedStr(values=parts):
                return _bounded("".join([str(await self.value(part)) for part in parts]), node.lineno)
            case ast.FormattedValue(value=inner, format_spec=None):
                return await self.value(inner)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return _bounded(f"{await self.value(left)}{await self.value(right)}", node.lineno)
            case ast.BoolOp(op=op, values=parts):
                found: Any = None
                for part in parts:
                    found = await self.value(part)
                    if bool(found) != isinstance(op, ast.And):
                        break
                return found
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                return not await self.value(inner)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if isinstance(
                op, ast.In | ast.NotIn | ast.Eq | ast.NotEq
            ):
                return await self.compared(left, op, right)
            case ast.Call(func=ast.Name(id=name)):
                return await self.called(node, name)
        raise PlanError("syntax", node.lineno, f"{type(node).__name__} is not allowed")

    async def compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> bool:
        one, other = await self.value(left), await self.value(right)
        if isinstance(op, ast.Eq | ast.NotEq):
            return bool(one == other) == isinstance(op, ast.Eq)
        inside: bool = one in other if isinstance(other, list) else str(one) in str(other)
        return inside == isinstance(op, ast.In)

    async def called(self, node: ast.Call, name: str) -> str:
        """The result of a tool, or of ``ask``."""
        given = [await self.value(part) for part in node.args]
        named = {part.arg or "": await self.value(part.value) for part in node.keywords}
        if self.calls >= self.steps:
            raise _Stop(StoppedBy.CAP)
        self.calls, self.evaluated = self.calls + 1, 0
        if name == "ask":
            return await self.asked(" ".join(map(str, [*given, *named.values()])), node.lineno)
        tool = functions(self.agent.tools.values()).get(name)
        if tool is None:
            raise PlanError("name", node.lineno, f"there is no function {name}")
        in_order = dict(zip(tool.parameters, given, strict=False))
        called = {identifier(parameter): parameter for parameter in tool.parameters}
        by_name = {called.get(part, part): value for part, value in named.items()}
        twice = [f"{parameter} is given twice" for parameter in in_order if parameter in by_name]
        many = ["too many arguments"] * (len(given) > len(tool.parameters))
        arguments = {**in_order, **by_name}
        wrong = next(filter(None, [*twice, tool.wrong(arguments), *many]), "")
        if wrong:
            raise PlanError("arguments", node.lineno, f"{name}: {wrong}")
        turn = await self.agent.act(self.turns, ToolCall(tool.name, arguments))
        if turn is None:
            raise _Stop(StoppedBy.BUDGET)
        self.turns = (*self.turns, turn)
        if FAILED.match(turn.results[0]):
            raise PlanError("tool", node.lineno, turn.results[0])
        return turn.results[0]

    async def asked(self, text: str, line: int) -> str:
        prompt = aside(self.task, f"{cut(text, self.agent.limits.result)}\nAnswer in a few words:")
        empty = Turn(f"ask at line {line}:", results=("",))
        if not self.agent.fits(prompt, self.ask_tokens, (*self.turns, empty), self.ask_tokens):
            raise _Stop(StoppedBy.BUDGET)
        piece = await ask(
            self.task, prompt, most=self.ask_tokens, stop=("\n",), temperature=0.0, stage="ask", at=self.calls
        )
        turn = self.agent.fitted(self.turns, replace(empty, results=(piece.text.strip(),)))
        if turn is None:
            raise _Stop(StoppedBy.BUDGET)
        self.turns = (*self.turns, turn)
        return turn.results[0]


def code_agents(
    plans: int = 3,
    steps: int = 12,
    plan_tokens: int = 256,
    ask_tokens: int = 32,
    step_tokens: int = 256,
    result: int = 2000,
    temperature: float = 0.0,
) -> Strategy:
    """Let the model write a program over its tools, run it, and answer from the results.

    1. The model reads the tools as signatures of functions and writes a program: assignments, ``if``, ``for`` over a
       list, f-strings, comparisons, calls of tools, and ``ask(text)``, which asks the model one short question.
    2. It is run here, statement by statement; nothing else of Python is known to it. So a call may use the results of
       calls before it, and no history is sent again.
    3. What goes wrong (a name, an argument, a tool that fails, what is no such program) becomes one line,
       ``error(kind=, line=, text=)``; the model reads it, with the results so far, and writes the next program.
    4. At the end, or after ``plans`` programs, the model answers with all results before it.

    Tokens of input: a program costs its prompt once; ReAct sends the whole conversation with every turn.

    Differences from the paper: one model plans and answers, without roles of their own; the language is this subset of
    Python.

    Helps when the model writes code well and a question needs several calls. Does not where the next step cannot be
    foreseen, or the model writes no program: then nothing is looked up.

    Args:
        plans: most programs.
        steps: most calls, of tools and ``ask``, of a program.
        plan_tokens: most tokens of a program.
        ask_tokens: most tokens of an answer to ``ask``.
        step_tokens: most tokens of the last answer.
        result: most characters of a tool's result.
        temperature: of the programs.
    """
    if min(plans, steps, plan_tokens, ask_tokens) < 1:
        raise InvalidInput(
            f"code-agents:plans={plans},steps={steps},plan_tokens={plan_tokens},ask_tokens={ask_tokens}; each is at "
            "least 1"
        )
    limits = limits_of(step_tokens, result, temperature)

    async def solve(task: Task) -> Answer:
        agent = Agent(task, replace(limits, temperature=0.0))
        turns: Turns = ()
        feedback, by = "", StoppedBy.CAP
        for number in range(plans):
            text = PLAN.format(
                tools="\n".join(signature(name, tool) for name, tool in functions(task.tools).items()),
                question=task.question.text,
                feedback=feedback,
            )
            prompt = aside(task, text)
            if not agent.fits(prompt, plan_tokens, turns):
                by = StoppedBy.BUDGET
                break
            piece = await ask(task, prompt, most=plan_tokens, stop=(), temperature=temperature, stage="plan", at=number)
            running = _Run(task, agent, steps, ask_tokens, turns)
            try:
                await running.body(program_of(piece.text))
                by = StoppedBy.DONE
            except _Stop as stop:
                by = stop.by
            except PlanError as error:
                turns, by = running.turns, StoppedBy.CAP
                feedback = (
                    f"Known so far:\n{agent.text(turns).strip() or 'nothing'}\nThe last program failed: {error}\n"
                )
                continue
            turns = running.turns
            break
        return await agent.conclude(turns, by)

    return Strategy(solve, frozenset({TOOLS}))


def identifier(name: str) -> str:
    """A name as a program can write it.

    >>> [identifier(name) for name in ("look", "web-search", "2nd.page", "import")]
    ['look', 'web_search', '_2nd_page', 'import_']
    """
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    plain = f"_{plain}" if plain[:1].isdigit() else plain
    return f"{plain}_" if keyword.iskeyword(plain) else plain


def functions(tools: Iterable[Tool]) -> dict[str, Tool]:
    """Tools by the names that a program calls them by; one that is taken gets a ``_`` behind it.

    >>> list(functions(Tool(name, "", {}, None) for name in ("a-b", "a.b", "ask")))
    ['a_b', 'a_b_', 'ask_']
    """
    found: dict[str, Tool] = {}
    for tool in tools:
        name = identifier(tool.name)
        while name in found or name == "ask":
            name += "_"
        found[name] = tool
    return found


def signature(name: str, tool: Tool) -> str:
    """A tool as the signature of a function.

    >>> signature("look", Tool("look", "Looks.", {"at": {"type": "string"}}, None))
    'def look(at: str) -> str:  # Looks.'
    """
    shown = ", ".join(
        f"{identifier(parameter)}: {_TYPES.get(str(kind.get('type')), 'Any')}"
        for parameter, kind in tool.parameters.items()
    )
    return f"def {name}({shown}) -> str:  # {' '.join(tool.about.split())}"


def _plain(value: Any) -> bool:
    """Whether a constant can be written as text and as JSON."""
    if isinstance(value, str):
        return value.isascii() or not re.search("[\ud800-\udfff]", value)
    return value is None or bool(abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value))


def _bounded(value: Any, line: int) -> Any:
    """A value that is not too large.

    Raises:
        PlanError: it is.
    """
    if _size(value) > _LARGEST:
        raise PlanError("limit", line, f"a text of more than {_LARGEST:,} characters, or a list as large")
    return value


def _size(value: Any) -> int:
    """Characters of a text; of a list, those of its parts and 100 for each."""
    if isinstance(value, list):
        return sum(100 + _size(part) for part in value)
    return len(value) if isinstance(value, str) else 0


def program_of(text: str) -> list[ast.stmt]:
    """The statements of a program, of its first fenced block if it has one.

    Raises:
        PlanError: it is no Python, empty, or too deep.

    >>> len(program_of("So:\\n```python\\na = look(at='x')\\nlook(at=a)\\n```"))
    2
    """
    fenced = _FENCE.search(text)
    code = fenced[1] if fenced else text
    try:
        statements = ast.parse(code.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PlanError("syntax", getattr(error, "lineno", 0) or 0, getattr(error, "msg", str(error))) from error
    if not statements:
        raise PlanError("syntax", 0, "the program is empty")
    level: list[ast.AST] = [*statements]
    for _ in range(_DEEPEST):
        level = [part for node in level for part in ast.iter_child_nodes(node)]
    if level:
        line = getattr(level[0], "lineno", 0)
        raise PlanError("limit", line, f"more than {_DEEPEST} parts within parts; use more lines")
    return statements
