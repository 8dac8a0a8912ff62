"""Interviews that plan ahead: the next questions are those whose path covers most for its turns.

Paper: "SparkMe: Adaptive Semi-Structured Interviewing for Qualitative Insight Discovery", arXiv 2602.21136. Its weights
and its order of work are those of the official code; the texts of the prompts are chosen here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from budgeteer.agent.turns import FAILED, Agent, Turns, limits_of
from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import ToolCall
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.solve.strategy import TOOLS
from budgeteer.solve.tool import Tool
from budgeteer.strategies.kit.trace import aside, ask

DRAFT = """You interview somebody. {about}
Open topics:
{topics}
Said so far:
{work}
Write {paths} ways in which the interview could go on, each of {horizon} questions, a line each: the way's letter, a \
colon, the question.
A:"""
JUDGE = """Open topics:
{topics}
Questions of an interview:
{path}
Which open topics would the answers cover, and how likely do they bring up something new, 0 to 1?
Write two lines:
covers: NUMBERS or none
new: NUMBER
covers:"""
NOTE = """Open topics:
{topics}
Question: {question}
Answer: {answer}
Which open topics does the answer cover? If it brings up a topic of its own that belongs to the interview, name it.
Write two lines:
covers: NUMBERS or none
topic: A FEW WORDS or none
covers:"""
_LINE = re.compile(r"^[\s*\-]*([A-Z])\d*\s*[.:)]\s*(\S.*?)\s*$", re.MULTILINE)
_TOPIC = re.compile(r"^\s*(?:\d+[.)]|[-*])\s+(\S.*?)\s*$", re.MULTILINE)
_LABEL = re.compile(r"^\s*(covers|new|topic)\s*:\s*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of what a path is worth: of a covered topic, of a turn, and of something new."""

    coverage: float = 0.5
    cost: float = 0.3
    emergence: float = 0.2


@dataclass(slots=True)
class Agenda:
    """The topics of an interview.

    Attributes:
        topics: in the order of the guide; those that came up stand behind them.
        open: numbers of those that nothing was said of, from 1 on.
    """

    topics: list[str]
    open: set[int] = field(default_factory=set)

    def listed(self) -> str:
        """The open topics, a line each."""
        return "\n".join(f"{number}. {self.topics[number - 1]}" for number in sorted(self.open))

    def cover(self, numbers: set[int]) -> None:
        """Take topics off."""
        self.open -= numbers

    def add(self, topic: str) -> None:
        """Add a topic that came up, if it is not there."""
        if topic.lower() not in map(str.lower, self.topics):
            self.topics.append(topic)
            self.open.add(len(self.topics))


def interview(
    paths: int = 3,
    horizon: int = 3,
    every: int = 3,
    turns: int = 24,
    coverage: float = 0.5,
    cost: float = 0.3,
    emergence: float = 0.2,
    plan_tokens: int = 256,
    note_tokens: int = 48,
    step_tokens: int = 256,
    result: int = 2000,
) -> Strategy:
    """Interview somebody about the topics of a guide, and answer with what was learnt.

    The guide is the question: its numbered or dashed lines are the topics. The person is the task's first tool with one
    text as its only argument: a call asks a question.

    1. One request drafts ``paths`` ways in which the interview could go on, each of ``horizon`` questions; one request
       a way judges which open topics it would cover and how likely it brings up something new.
    2. The way of the highest utility is gone, at most ``every`` of its questions, then it is planned again. Formula:
       U = coverage x topics newly covered - cost x turns + emergence x chance of something new. The interview ends
       when no topic is open, no way is worth more than 0, or the turns or the budget end.
    3. Each answer is read by one request: topics that it covers are taken off, and at most one topic that it brings
       up is put on the list.
    4. The model answers the question with the whole conversation before it.

    Differences from the paper: it plans between turns instead of beside them, nothing goes on where U is 0 or less (the
    official code asks on until its turns end), and each answer is judged by one request without scores of depth. What
    planning costs is charged like all else, but it is not in U, which counts turns as the paper's does.

    Helps where people's time is dear, a question can cover several topics, and some come up on the way. Does not where
    topics are independent and few: asking for one after another covers them in as many turns, and plans cost nothing.

    Args:
        paths: drafted at once.
        horizon: questions of a path.
        every: questions that are asked of a path before the next plan.
        turns: most questions.
        coverage, cost, emergence: weights of the utility, 0 or more; at cost 0 it never ends by itself.
        plan_tokens: most tokens of a draft.
        note_tokens: most tokens of a judgement.
        step_tokens: most tokens of the answer.
        result: most characters of what the person says at once.
    """
    if min(paths, horizon, every, turns, plan_tokens, note_tokens) < 1 or not all(
        w >= 0 for w in (coverage, cost, emergence)
    ):
        raise InvalidInput(
            f"interview:paths={paths},horizon={horizon},every={every},turns={turns},plan_tokens={plan_tokens},"
            f"note_tokens={note_tokens},coverage={coverage},cost={cost},emergence={emergence}; give weights from 0 "
            "and at least 1 of all else"
        )
    limits, weights = limits_of(step_tokens, result, 0.0), Weights(coverage, cost, emergence)

    async def solve(task: Task) -> Answer:
        agent = Agent(task, limits)
        person = next((tool for tool in task.tools if _asked_by_text(tool)), None)
        agenda = agenda_of(task.question.text)
        said: Turns = ()
        by = StoppedBy.DONE
        while person is not None and agenda.open:
            if len(said) >= turns:
                by = StoppedBy.CAP
                break
            path, fits = await _planned(task, agent, agenda, said, (paths, horizon, plan_tokens, note_tokens), weights)
            if not path:
                by = StoppedBy.DECIDED if fits else StoppedBy.BUDGET
                break
            for question in path[: min(every, turns - len(said))]:
                (argument,) = person.parameters
                turn = await agent.act(said, ToolCall(person.name, {argument: question}))
                if turn is None:
                    return await agent.conclude(said, StoppedBy.BUDGET)
                said = (*said, turn)
                if FAILED.match(turn.results[0]):  # the person is gone, or its calls are used up
                    return await agent.conclude(said, StoppedBy.BUDGET)
                await _noted(task, agent, agenda, said, question, note_tokens)
        return await agent.conclude(said, by)

    return Strategy(solve, frozenset({TOOLS}))


def utility(covered: int, turns: int, chance: float, weights: Weights) -> float:
    """What a path is worth.

    >>> round(utility(covered=3, turns=3, chance=0.5, weights=Weights()), 9)
    0.7
    """
    return weights.coverage * covered - weights.cost * turns + weights.emergence * chance


def agenda_of(guide: str) -> Agenda:
    """The topics of a guide: its numbered or dashed lines, or all of it.

    >>> agenda_of("Find out:\\n1. their work\\n- their tools").topics
    ['their work', 'their tools']
    """
    topics = _TOPIC.findall(guide) or [" ".join(guide.split())]
    return Agenda(topics, set(range(1, len(topics) + 1)))


def paths_of(text: str, most: int, horizon: int) -> list[list[str]]:
    """The paths of a draft, as lists of questions; what is no question of a path is left out.

    >>> paths_of("A: What do you do?\\nA: Since when?\\nNow the other:\\nB: Which tools?", 3, 1)
    [['What do you do?'], ['Which tools?']]
    """
    found: dict[str, list[str]] = {}
    for letter, question in _LINE.findall(text):
        found.setdefault(letter, []).append(question)
    return [questions[:horizon] for questions in list(found.values())[:most]]


def judged(text: str, agenda: Agenda) -> tuple[set[int], float, str]:
    """The open topics that a judgement names, a chance from 0 to 1, and a topic; empty where it has none.

    >>> judged("covers: 1, 3 and 9\\nnew: 0.25", Agenda(["a", "b", "c"], {1, 2, 3}))
    ({1, 3}, 0.25, '')
    """
    said = {label.lower(): value for label, value in _LABEL.findall(text)}
    numbers = {int(number) for number in re.findall(r"\d+", said.get("covers", ""))} & agenda.open
    chance = re.search(r"(\d*\.?\d+)\s*(%?)", said.get("new", ""))
    topic = said.get("topic", "").strip(" .\"'")
    share = float(chance[1]) / (100 if chance[2] else 1) if chance else 0.0
    return numbers, min(1.0, share), "" if topic.lower() in ("", "none") else topic[:80]


def _answer(task: Task, text: str) -> str:
    """What a model wrote behind its thinking."""
    close = task.style.close
    return (text.rpartition(close)[2] if close else text).strip()


def _asked_by_text(tool: Tool) -> bool:
    return [kind.get("type") for kind in tool.parameters.values()] == ["string"]


async def _planned(
    task: Task, agent: Agent, agenda: Agenda, said: Turns, sizes: tuple[int, int, int, int], weights: Weights
) -> tuple[Sequence[str], bool]:
    """The best path, empty if none is worth a turn; and whether the budget allowed to plan."""
    paths, horizon, draft, note = sizes
    about = task.question.text.strip().partition("\n")[0]
    work = agent.text(said).strip() or "nothing"
    told = DRAFT.format(about=about, topics=agenda.listed(), work=work, paths=paths, horizon=horizon)
    prompt, number = aside(task, told), len(said)
    if not agent.fits(prompt, draft, said):
        return (), False
    drafted = await ask(task, prompt, most=draft, stop=(), temperature=0.0, stage="plan", at=number)
    best: Sequence[str] = ()
    highest = 0.0
    for place, path in enumerate(paths_of(f"A: {_answer(task, drafted.text)}", paths, horizon)):
        prompt = aside(task, JUDGE.format(topics=agenda.listed(), path="\n".join(path)))
        if not agent.fits(prompt, note, said):
            return best, False
        piece = await ask(task, prompt, most=note, stop=(), temperature=0.0, stage="critic", at=number * paths + place)
        covered, chance, _ = judged(f"covers: {_answer(task, piece.text)}", agenda)
        worth = utility(len(covered), len(path), chance, weights)
        if worth > highest:
            best, highest = path, worth
    return best, True


async def _noted(task: Task, agent: Agent, agenda: Agenda, said: Turns, question: str, most: int) -> None:
    """Take the topics off that an answer covers; without room for the request nothing is taken off."""
    told = NOTE.format(topics=agenda.listed(), question=question, answer=said[-1].results[0])
    prompt = aside(task, told)
    if not agenda.open or not agent.fits(prompt, most, said):
        return
    piece = await ask(task, prompt, most=most, stop=(), temperature=0.0, stage="note", at=len(said))
    covered, _, topic = judged(f"covers: {_answer(task, piece.text)}", agenda)
    agenda.cover(covered)
    if topic:
        agenda.add(topic)
