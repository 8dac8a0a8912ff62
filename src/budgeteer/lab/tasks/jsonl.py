"""Items from JSON lines, such as GSM8K's ``{"question", "answer": "... #### 42"}``."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from budgeteer.errors import InvalidInput
from budgeteer.lab.tasks.base import Item

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def _number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def final(text: str) -> str:
    """A reference answer without the solution before it: what follows the last ``####``, as in GSM8K."""
    return text.rsplit("####", 1)[-1].strip()


def numeric(text: str) -> bool:
    """Whether a reference answer is compared as a number."""
    return _number(text) is not None


def agrees(answer: str | None, reference: str) -> bool:
    """Whether the answer's last number equals the reference's, or the texts agree when the reference has none.

    >>> agrees("$1,200.", "1200"), agrees("paris ", "Paris"), agrees(None, "1")
    (True, True, False)
    """
    if answer is None:
        return False
    want = _number(reference)
    if want is None:
        return answer.strip().casefold() == reference.casefold()
    return _number(answer) == want


class JsonLines:
    """Problems from a ``.jsonl`` or ``.jsonl.gz`` file; numeric answers compare as numbers, others as text.

    Args:
        path: one JSON object a line.
        question, answer: names of the fields; an answer with ``####`` keeps what follows it.

    Raises:
        InvalidInput: the file cannot be read or a line lacks a field; names file and line.
    """

    def __init__(self, path: str | Path, question: str = "question", answer: str = "answer") -> None:
        path = Path(path)
        self.name = path.name.split(".")[0]
        items: list[Item] = []
        opener = gzip.open if path.suffix == ".gz" else open
        number = 0
        try:
            with opener(path, "rt", encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        row = json.loads(line)
                        reference = final(str(row[answer]))
                        items.append(Item(f"{self.name}:{number}", str(row[question]), reference, entry=row))
        except (OSError, EOFError, zlib.error) as error:
            raise InvalidInput(f"cannot read {path}: {error}") from error
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
            raise InvalidInput(f"{path}, line {number}: not a JSON object a line ({error})") from error
        except KeyError as error:
            raise InvalidInput(f"{path}, line {number}: no field {error}; name the fields of your file") from error
        if not items:
            raise InvalidInput(f"{path} holds no items; give one JSON object a line")
        self.items: Sequence[Item] = items

    def verify(self, item: Item, answer: str | None) -> float:
        """1 when the answer's last number equals the reference's, or the texts agree when it has none."""
        return float(agrees(answer, item.answer))
