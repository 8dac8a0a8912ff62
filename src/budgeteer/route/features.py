"""What describes a request, as numbers: hashed words of its prompt, categories, numbers."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64

PROMPT = "prompt"
BUCKETS = 128
"""Numbers into which the words of a prompt are hashed."""
LONGEST = 20_000
"""Characters of a prompt whose words are counted: whoever routes for many may not be held up by one."""
MANY = 30
"""Values that a category may have in any table; in a large one it may have half as many as there are rows."""
_COUNTED = 3
"""Numbers of a prompt beside its words."""
_WORD = re.compile(r"[^\W_]+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Features:
    """How columns become numbers; made from the training rows alone.

    Attributes:
        prompt: whether there is a prompt.
        numbers: column -> (mean, standard deviation).
        categories: column -> its values in the training rows; another value is none of them.
    """

    prompt: bool
    numbers: Mapping[str, tuple[float, float]]
    categories: Mapping[str, tuple[str, ...]]

    def of(self, fields: Mapping[str, Sequence[Any]]) -> F64:
        """Features [n, d]; the first is 1.

        Raises:
            InvalidInput: a column is missing, is shorter than another one, or holds something else than it is read as.
        """
        wanted = [*([PROMPT] if self.prompt else ()), *self.numbers, *self.categories]
        if missing := [column for column in wanted if column not in fields]:
            raise InvalidInput(f"the router reads {', '.join(missing)}, which the requests do not have")
        for column in wanted:
            if isinstance(fields[column], str):  # would be routed letter by letter
                raise InvalidInput(f"{column} is the text {fields[column][:40]!r}; give a list, a value a request")
            if column == PROMPT and (other := [text for text in fields[column] if not isinstance(text, str)]):
                raise InvalidInput(f"{column} holds {other[0]!r:.40}; give a text a request")
        sizes = {len(fields[column]) for column in wanted}
        if len(sizes) > 1:
            raise InvalidInput(f"columns of {min(sizes)} to {max(sizes)} requests; give each a value a request")
        n = len(fields[wanted[0]]) if wanted else 0
        columns: list[F64] = [np.ones((n, 1))]
        if self.prompt:
            columns.append(np.array([_hashed(text) for text in fields[PROMPT]]).reshape(n, BUCKETS + _COUNTED))
        for column, (mean, deviation) in self.numbers.items():
            try:
                given = np.asarray(fields[column], np.float64)
            except (TypeError, ValueError):
                given = np.full(1, np.nan)
            if not np.isfinite(given).all():
                raise InvalidInput(f"{column} holds {list(fields[column])[:3]}; give a finite number a request")
            columns.append(((given - mean) / (deviation or 1.0))[:, None])
        for column, values in self.categories.items():
            columns.append(
                np.array([[str(given) == value for value in values] for given in fields[column]], np.float64)
            )
        return np.concatenate(columns, axis=1)

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {"prompt": self.prompt, "numbers": dict(self.numbers), "categories": dict(self.categories)}

    @classmethod
    def from_json(cls, data: Any) -> Features:
        """Read back what :meth:`to_json` gave."""
        numbers = {name: (float(mean), float(deviation)) for name, (mean, deviation) in data["numbers"].items()}
        categories = {name: tuple(map(str, values)) for name, values in data["categories"].items()}
        return cls(bool(data["prompt"]), numbers, categories)


def learnt(fields: Mapping[str, Sequence[Any]], without: Sequence[str] = ()) -> Features:
    """The features of a table's columns.

    Args:
        fields: column -> values.
        without: columns that do not describe a request, such as its id.

    Raises:
        InvalidInput: no column is left, one of ``without`` is none, or a text is another one in most rows.
    """
    if unknown := [name for name in without if name not in fields]:
        raise InvalidInput(f"no column {unknown[0]!r} to leave out; the requests have {', '.join(fields) or 'none'}")
    left = {name: values for name, values in fields.items() if name not in without}
    if not left:
        raise InvalidInput("no column describes the requests; give a prompt, a category or a number")
    texts = {name: values for name, values in left.items() if any(isinstance(value, str) for value in values)}
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = {
            name: (float(np.mean(values)), float(np.std(values))) for name, values in left.items() if name not in texts
        }
    if wide := [name for name, made in numbers.items() if not np.isfinite(made).all()]:
        raise InvalidInput(f"column {wide[0]!r} has numbers too large to take a mean of; scale or ignore it")
    categories = {name: tuple(sorted(set(map(str, values)))) for name, values in texts.items() if name != PROMPT}
    for name, values in categories.items():
        if len(values) > max(MANY, len(texts[name]) / 2):  # what was learnt of one value says nothing of the next
            raise InvalidInput(
                f"column {name!r} has {len(values):,} values in {len(texts[name]):,} rows, too many for a category; "
                f"call it {PROMPT} if it is the text of the request, or ignore it"
            )
    return Features(PROMPT in texts, numbers, categories)


def _hashed(text: str) -> list[float]:
    """Counted words in buckets, 1 + ln(count), scaled to length 1, and the logarithms of characters and words."""
    words = _WORD.findall(text[:LONGEST].lower())
    vector = [0.0] * BUCKETS
    for word in words:
        vector[zlib.crc32(word.encode("utf-8", "surrogatepass")) % BUCKETS] += 1
    vector = [1 + math.log(count) if count else 0.0 for count in vector]
    norm = math.sqrt(sum(value * value for value in vector)) or 1.0
    digits = sum(word.isdigit() for word in words)
    return [
        *(value / norm for value in vector),
        math.log1p(len(text)) / 5,
        math.log1p(len(words)) / 5,
        math.log1p(digits),
    ]
