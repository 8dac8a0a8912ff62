"""What a call, a rollout or a trace consumed."""

from __future__ import annotations

from dataclasses import dataclass, fields

from budgeteer.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens consumed, in inclusive buckets; ``None`` means unknown, never 0.

    ``cached`` is inside ``input`` and ``reasoning`` is inside ``output``. Adding two usages keeps a
    bucket unknown when either side does not know it.

    >>> Usage(input=10, output=5) + Usage(input=1, output=2)
    Usage(input=11, output=7, cached=None, reasoning=None)
    """

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value < 0:
                raise InvalidInput(f"Usage.{field.name} is {value}; token counts are 0 or more (None = unknown)")
        for part, whole in (("cached", "input"), ("reasoning", "output")):
            small, large = getattr(self, part), getattr(self, whole)
            if small is not None and large is not None and small > large:
                raise InvalidInput(f"Usage.{part}={small} exceeds {whole}={large}; {part} tokens are inside {whole}")

    @property
    def total(self) -> int | None:
        """Input plus output tokens, or None when either is unknown."""
        return None if self.input is None or self.output is None else self.input + self.output

    def __add__(self, other: Usage) -> Usage:
        def add(name: str) -> int | None:
            a, b = getattr(self, name), getattr(other, name)
            return None if a is None or b is None else int(a) + int(b)

        return Usage(**{f.name: add(f.name) for f in fields(self)})
