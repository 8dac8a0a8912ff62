"""What published rewards pay for that nobody wants: made-up rollouts, and what each reward gives them.

A case is a prompt with rollouts of which two differ in one thing: one behaves as it should, the other takes a way out.
The table shows by how much a reward prefers the way out. NumPy only; no model, nothing random.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from budgeteer.core import registry
from budgeteer.core.plan import ENDED
from budgeteer.rl.reward import counted  # noqa: F401 (declares columns that any reward may name)
from budgeteer.rl.reward.protocol import Columns, Reward

CAP = 1000
"""Most tokens of a rollout."""
STEPS = 3
"""Steps for which a reward that remembers sees the rollouts before it scores them."""
THOUGHT, ANSWER = ("so", "seven", "plus", "two", "wait"), ("it", "is", "nine")
LEAK = "wait"


@dataclass(frozen=True, slots=True)
class Made:
    """One made-up rollout; a token is a word.

    Attributes:
        right: whether its answer is.
        think, answer: tokens of thinking and of the answer.
        leaks: whether the answer goes on thinking.
        repeats: tokens of thinking, of those above, that say the same again.
        tag: what the text begins with.
    """

    right: bool
    think: int
    answer: int = 20
    leaks: bool = False
    repeats: int = 0
    tag: str = ""

    def words(self) -> list[str]:
        """The tokens, with the one that closes the thinking."""
        own = self.think - self.repeats
        # numbers that follow no pattern, so that only what is meant to be repeated is
        thought = [f"{THOUGHT[i % 5]}{i * i}" if i % 9 else THOUGHT[i % 5] for i in range(own)]
        again = [THOUGHT[i % 4] for i in range(self.repeats)]
        said = [f"{ANSWER[i % 3]}{i * i}" for i in range(self.answer)]
        if self.leaks:
            said[::10] = [LEAK] * len(said[::10])
        return [*thought, *again, "</think>", *said]


@dataclass(frozen=True, slots=True)
class Case:
    """A way out.

    Attributes:
        name: of the column in the table.
        meaning: in one sentence.
        way_out, honest: the two rollouts that are compared.
        others: the other rollouts of the prompt.
    """

    name: str
    meaning: str
    way_out: Made
    honest: Made
    others: tuple[Made, ...]


RIGHT = tuple(Made(True, n) for n in (280, 380, 480, 580))
WRONG = tuple(Made(False, n) for n in (250, 400))
CASES = (
    Case(
        "short wrong",
        "A wrong answer of 100 tokens, before a wrong one of 700; four of eight answers of the prompt are right.",
        Made(False, 80),
        Made(False, 680),
        RIGHT + WRONG,
    ),
    Case(
        "all wrong",
        "The same on a prompt of which no answer is right: what a policy learns there is learnt from this alone.",
        Made(False, 80),
        Made(False, 680),
        tuple(replace(row, right=False) for row in RIGHT + WRONG),
    ),
    Case(
        "wrong over right",
        "A wrong answer of 100 tokens, before a right one of 700.",
        Made(False, 80),
        Made(True, 680),
        RIGHT + WRONG,
    ),
    Case(
        "moved",
        "A right answer that thinks 50 tokens and goes on thinking in its answer, before one of the same length that "
        "does not.",
        Made(True, 50, 350, leaks=True),
        Made(True, 380, 20),
        RIGHT + WRONG,
    ),
    Case(
        "empty thinking",
        "A right answer that thinks nothing and works in the answer, before one of the same length that thinks.",
        Made(True, 0, 400),
        Made(True, 380, 20),
        RIGHT + WRONG,
    ),
    Case(
        "padded right",
        "A right answer with 300 tokens that say the same again, before the same without them.",
        Made(True, 580, repeats=300),
        Made(True, 280),
        RIGHT + WRONG,
    ),
    Case(
        "padded wrong",
        "The same with wrong answers.",
        Made(False, 580, repeats=300),
        Made(False, 280),
        RIGHT + WRONG,
    ),
    Case(
        "tag too easy",
        "A right answer to a hard prompt (two of eight are right) that says [Easy], before the same that says [Hard].",
        Made(True, 280, tag="[Easy]"),
        Made(True, 280, tag="[Hard]"),
        tuple(Made(False, n, tag="[Hard]") for n in (200, 300, 400, 500, 600, 700)),
    ),
    Case(
        "tag too hard",
        "A right answer to an easy prompt that says [Hard], before the same that says [Easy].",
        Made(True, 280, tag="[Hard]"),
        Made(True, 280, tag="[Easy]"),
        tuple(Made(True, n, tag="[Easy]") for n in (200, 300, 400, 500, 600, 700)),
    ),
)


def columns_of(made: Sequence[Made], needs: Iterable[str]) -> Columns:
    """The columns of rollouts of one prompt that a reward with these needs reads."""
    words = [row.words() for row in made]
    number = {word: i for i, word in enumerate(sorted({word for row in words for word in row}))}
    length = np.array([len(row) for row in words])
    width = int(length.max())
    tokens, entropy = np.zeros((len(made), width), np.int64), np.full((len(made), width), np.nan)
    for i, (row, own) in enumerate(zip(words, made, strict=True)):
        tokens[i, : len(row)] = [number[word] for word in row]
        # thinking is less certain than answering, and least where it hesitates; what is said again is certain
        unsure = [1.5 if word == LEAK else 0.5 for word in row[: own.think]]
        unsure[own.think - own.repeats :] = [0.05] * own.repeats
        entropy[i, : len(row)] = [*unsure, 0.1, *[0.6 if own.leaks else 0.2] * own.answer]
    n = len(made)
    given = {
        "closed": np.array([row.think + 1 for row in made]),
        "answered": length,
        "tokens": tokens,
        "sampled": (np.arange(width) < length[:, None]) * 1,
        "entropy": entropy,
        "text": [row.tag + " ".join(said) for row, said in zip(made, words, strict=True)],
        "effort": np.full(n, 0.5),
        "target": np.full(n, CAP / 2),
        "needs_thinking": np.ones(n, np.int64),
    }
    rows = Columns([row.right * 1.0 for row in made], length, [0] * n, [CAP] * n, [ENDED] * n)
    return rows.completed(tuple(needs), given)


def preference(reward: Reward, case: Case) -> float:
    """By how much a reward prefers the way out to what should be done; below 0 where it punishes it."""
    rows = columns_of([case.way_out, case.honest, *case.others], reward.needs)
    state = reward.init()
    for _ in range(STEPS):
        state = reward.observe(state, rows)
    scored = reward.score(state, rows)
    return float(scored[0] - scored[1])


def rewards() -> dict[str, Reward]:
    """The registered rewards of this package and their variants of which one looks different here, by name."""
    names = [*(name for name, method in registry.of("reward").items() if method.path.startswith("budgeteer."))]
    more = ["adactrl:hard=true", "l1:at_most=true", "laser:explore=false", "laser:target=0.4"]
    return {name: registry.part_of("reward", name) for name in sorted([*names, *more])}


def table() -> str:
    """The preferences of all rewards as a Markdown table; those above 0 are bold."""
    lines = ["| reward | " + " | ".join(case.name for case in CASES) + " |", "|---" * (len(CASES) + 1) + "|"]
    for name, reward in rewards().items():
        found = [preference(reward, case) for case in CASES]
        shown = [f"**{value:+.2f}**" if value > 5e-3 else f"{value:+.2f}" if value < -5e-3 else "0" for value in found]
        lines.append(f"| `{name}` | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def legend() -> str:
    """The cases in words, as a Markdown list."""
    return "\n".join(f"- **{case.name}**: {case.meaning}" for case in CASES)
