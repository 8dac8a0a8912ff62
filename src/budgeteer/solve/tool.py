"""Tools that a strategy may call: a name, a schema, a coroutine function and a price."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from budgeteer.core.amounts import MONEY
from budgeteer.core.errors import InvalidInput
from budgeteer.metering.patience import GivenUp, awaited
from budgeteer.metering.results import text_of
from budgeteer.models.chat import ToolCall

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_JSON = {"string": str, "integer": int, "number": int | float, "boolean": bool, "array": list, "object": dict}


class _NoCoroutine(Exception):
    """A tool's function that cannot be awaited: no failure of a call, but of whoever wrote the tool."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call.

    A call is one unit of the kinds ``tool`` and ``tool:NAME`` (in lower case), ``cost`` of ``money``, and the bytes of
    its result under ``bytes`` and ``bytes:NAME``.

    Attributes:
        name: letters, digits, ``_``, ``.`` and ``-``.
        about: what it does, for the model.
        parameters: name of each argument -> its JSON schema, such as ``{"query": {"type": "string"}}``; all of them are
            required.
        function: arguments -> result; any result is read as text.
        cost: price of a call in pico-dollars.
        patience: seconds after which a call is given up; one that blocks its thread, such as by time.sleep, cannot be.
        most: most bytes of a result; the rest is cut off.
        everything: all that the tool could tell, for strategies that read it at once instead; ``""`` = too much.

    >>> async def double(arguments): return 2 * arguments["n"]
    >>> tool = Tool("double", "Twice n.", {"n": {"type": "integer"}}, double)
    >>> tool.schema()["function"]["parameters"]["required"], tool.units("tool:double"), tool.units("all")
    (['n'], 1, 0)
    """

    name: str
    about: str
    parameters: Mapping[str, Mapping[str, Any]]
    function: Callable[[Mapping[str, Any]], Awaitable[Any]] = field(repr=False)
    cost: int = 0
    patience: float = 30.0
    most: int = 32_000
    everything: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidInput(f"tool {self.name!r}; a name has letters, digits, '_', '.' and '-', 64 at most")
        if self.cost < 0 or self.most < 1 or not self.patience > 0:
            raise InvalidInput(
                f"tool {self.name}: cost={self.cost}, most={self.most}, patience={self.patience}; give a cost of 0 or "
                "more, at least one byte, and seconds above 0"
            )

    def schema(self) -> dict[str, Any]:
        """As chat templates and the OpenAI API take it."""
        kinds = {name: dict(kind) for name, kind in self.parameters.items()}
        parameters = {"type": "object", "properties": kinds, "required": list(kinds)}
        about = {"name": self.name, "description": self.about, "parameters": parameters}
        return {"type": "function", "function": about}

    def units(self, kind: str) -> int:
        """Units of a kind that a call is charged, the size of its result apart."""
        if kind in ("tool", f"tool:{self.name.lower()}"):
            return 1
        return self.cost if kind == MONEY else 0

    def sized(self, kind: str) -> bool:
        """Whether a kind counts the bytes of its results."""
        return kind in ("bytes", f"bytes:{self.name.lower()}")

    def wrong(self, arguments: Mapping[str, Any] | None) -> str:
        """What is wrong with the arguments of a call; ``""``: nothing.

        >>> Tool("a", "", {"n": {"type": "integer"}}, None).wrong({"n": "7"})
        "n is '7', no integer"
        """
        if arguments is None:
            return "the arguments are no JSON object"
        for name in [*self.parameters, *arguments]:
            if name not in arguments:
                return f"{name} is missing"
            if name not in self.parameters:
                return f"there is no argument {name}"
            kind, value = self.parameters[name].get("type"), arguments[name]
            number = isinstance(value, bool) and kind in ("integer", "number")
            if kind in _JSON and (number or not isinstance(value, _JSON[kind])):
                return f"{name} is {value!r:.60}, no {kind}"
        return ""

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """The text of a result, or one that says that there is none: the function raised, or took too long.

        Halves of character pairs in it, which no endpoint takes, become signs of a missing character.

        Raises:
            InvalidInput: the function is no coroutine function.
        """
        try:
            result = await awaited(lambda: self._made(arguments), self.patience)
            text = text_of(result)
        except GivenUp:
            text = f"[{self.name} gave no answer within {self.patience:g} s; go on without it]"
        except _NoCoroutine as error:
            raise InvalidInput(str(error)) from None
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            text = f"[{self.name} failed: {said}]"
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    async def _made(self, arguments: Mapping[str, Any]) -> Any:
        """The function's result. That it ends its program, or cancels itself, is a failure of its own as any other."""
        try:
            made = self.function(arguments)
            if inspect.isawaitable(made):
                return await made
        except SystemExit as error:
            raise RuntimeError(f"it wanted to end the program, {error!r}") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # by whoever waits for it
                raise
            raise RuntimeError("it cancelled itself") from error
        raise _NoCoroutine(
            f"the function of the tool {self.name} returned {type(made).__name__}, and no coroutine; write async def, "
            "and await asyncio.to_thread(...) in it for what blocks"
        )


def seen(call: ToolCall, result: str) -> str:
    """What a model reads of a call's result: one that is blank, such as a search that found nothing, says so.

    >>> seen(ToolCall("search", {}), " "), seen(ToolCall("search", {}), "[]")
    ('[search: the result is empty]', '[]')
    """
    return result if result.strip() else f"[{call.name}: the result is empty]"


def written(arguments: Mapping[str, Any]) -> str:
    """Arguments as JSON, always the same text for the same arguments."""
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True, default=str)
