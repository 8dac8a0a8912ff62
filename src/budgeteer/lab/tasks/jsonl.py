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
                        final = str(row[answer]).rsplit("####", 1)[-1].strip()
                        items.append(Item(f"{self.name}:{number}", str(row[question]), final, entry=row))
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
        if answer is None:
            return 0.0
        want = _number(item.answer)
        if want is None:
            return float(answer.strip().casefold() == item.answer.casefold())
        return float(_number(answer) == want)
