"""A package of somebody else with one small method of every part, and two recipes that are broken on purpose."""

import os
import random
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from budgeteer.context.fill import by_score
from budgeteer.core.allocator import stateless
from budgeteer.core.column import Column, declare
from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.core.joint import Assignment
from budgeteer.core.method import Method
from budgeteer.core.online import Online, require_menu
from budgeteer.core.option import REQUIRED, Option, options
from budgeteer.core.plan import Plan
from budgeteer.core.router import Router
from budgeteer.core.steer import CONTINUE, FINISH, Action, Steer
from budgeteer.ledger import Allowance
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.recipe import Beginnings, Carry, Importance, Stream, Variant, Variants
from budgeteer.rl.recipes import grpo
from budgeteer.rl.reward.protocol import Reward
from budgeteer.route.kit import ridge
from budgeteer.route.protocol import Route, best, check_width
from budgeteer.solve import Answer, StoppedBy, Strategy, Style
from budgeteer.strategies.aggregator import Ranked
from budgeteer.strategies.kit.trace import ask
from budgeteer.strategies.scorer import Scorer
from budgeteer.tuning import Builder, Built
from budgeteer.tuning.kit import example, traces

SCALE = 1.0
MARK = Path(os.environ.get("THEIRS_MARK", os.devnull))


def require(holds, what):
    if not holds:
        raise InvalidInput(what)


def their_uniform():
    """The same number of units for all."""

    def allocate(budget, items):
        each = int(budget // items.cost.sum()) if len(items) else 0
        units = np.full(len(items), each)
        return Plan(items.keys, units, items.spend(units))

    return stateless(allocate)


@dataclass(frozen=True)
class Left:
    left: tuple[float, ...]


def their_threshold(budget, price):
    """The option worth most above its price, as long as it fits."""

    def step(state, value, cost, *, share=None):
        require_menu(value, cost, 1)
        gain, option = max((v - price * c[0], i) for i, (v, c) in enumerate(zip(value, cost, strict=True)))
        if gain <= 0 or value[option] <= 0 or cost[option][0] > state.left[0]:
            return -1, state
        return option, Left((state.left[0] - cost[option][0],))

    def observe(state, planned, actual):
        return Left((state.left[0] + planned[0] - actual[0],))

    return Online(lambda: Left((float(budget),)), step, observe)


def their_search(loss, cost, budget, start, *, rng):
    """The best of some random choices within the budget."""
    n, k = cost.shape
    require(np.all(np.isfinite(cost) & (cost >= 0)), "costs are finite and 0 or more")
    require(start.shape == cost.shape and np.all(np.isfinite(start)), "logits are finite and of the costs' shape")
    require(cost.min(axis=1).sum() <= budget, f"nothing costs as little as {budget}")
    best, lowest, calls = cost.argmin(axis=1), np.inf, 0
    for turn in range(50):
        choice = rng.integers(0, k, n) if turn else best
        if cost[np.arange(n), choice].sum() <= budget:
            value, _ = loss(np.eye(k)[choice])
            require(np.isfinite(value), f"the loss is {value}")
            calls += 1
            best, lowest = (choice, value) if value < lowest else (best, lowest)
    return Assignment(best, best, float(lowest), calls)


def their_rounding(chance, rng):
    """Systematic sampling in a random order."""
    require(chance.ndim == 1 and np.all((chance >= 0) & (chance <= 1)), "chances are [n] in [0, 1]")
    order = rng.permutation(len(chance))
    ends = np.round(np.append(0.0, np.cumsum(chance[order])), 12) + rng.random()
    chosen = np.zeros(len(chance), np.bool_)
    chosen[order] = np.diff(np.floor(ends)) > 0
    return chosen


class Greedy:
    """Every request takes the free resource of most value; the bound gives each request its best one."""

    def __init__(self, value, chance):
        self.value, self.bound = value, float(chance @ value.max(axis=0))

    def serve(self, time, free, rng):
        worth = np.where(free, self.value[:, time], 0.0)
        return int(worth.argmax()) if worth.max() > 0 else -1


def their_matching(value, chance):
    """Greedy matching."""
    require(value.ndim == 2 and np.all(np.isfinite(value) & (value >= 0)), "values are [n, T], finite, 0 or more")
    require(chance.shape == value.shape[1:] and np.all((chance > 0) & (chance <= 1)), "chances are [T] in (0, 1]")
    return Greedy(value.copy(), chance)


@dataclass(frozen=True)
class Loads:
    share: np.ndarray


def their_router(rate):
    """The expert of the best score, less a price on the share of the load it had so far."""

    def init(experts):
        require(experts >= 1, f"{experts} experts; at least 1")
        return Loads(np.zeros(experts))

    def route(state, scores):
        fits = scores.ndim == 2 and scores.shape[1] == len(state.share) and np.all(np.isfinite(scores))
        require(fits, "scores are finite, one an expert")
        chosen = np.argmax(scores - state.share, axis=1)[:, None]
        return chosen, np.take_along_axis(scores, chosen, axis=1)

    def observe(state, load):
        load = np.asarray(load, np.float64)
        require(load.shape == state.share.shape and np.all(np.isfinite(load) & (load >= 0)), "loads are counts")
        return Loads(state.share + rate * (load / max(load.sum(), 1.0) - 1 / len(load)))

    return Router(init, route, observe)


class TheirAllowance(Allowance):
    """An allowance that counts its calls."""

    calls = 0

    def reserve(self, *args, **kwargs):
        self.calls += 1
        return super().reserve(*args, **kwargs)


def their_steer():
    """End a row once it has answered."""

    def step(state, now):
        return Action(np.where(now.answered >= 0, FINISH, CONTINUE).astype(np.int8)), state

    return Steer(lambda rows: (), step)


async def first_trace(task, max_tokens):
    style = task.style
    piece = await ask(task, style.prompt(task.question.text), most=max_tokens, stop=style.stop, temperature=0.0)
    if not piece.tokens:
        return Answer(None, StoppedBy.BUDGET)
    return Answer(style.read(piece.text), piece.stopped_by, (piece.text,))


def their_direct(max_tokens=256):
    """One trace."""

    async def solve(task):
        return await first_trace(task, max_tokens)

    return Strategy(solve)


async def their_turns(tasks, max_tokens=256):
    """One trace for each question, in order, while there is budget."""
    for i, task in enumerate(tasks):
        try:
            yield i, await first_trace(task, max_tokens)
        except ModelError as error:
            yield i, Answer(None, StoppedBy.ERROR, error=str(error))


def their_count():
    """The answer that most samples give."""

    def rank(answers, scores):
        count = Counter(answer for answer in answers if answer is not None)
        return [Ranked(answer, n / count.total()) for answer, n in count.most_common()]

    return rank


def their_brevity():
    """Short traces are good."""

    def bind(task):
        async def score(samples):
            return [1 / (1 + sample.tokens) for sample in samples]

        return score

    return Scorer(bind)


class Letters:
    """Four letters a token of output."""

    kind = "letters"

    def __call__(self, usage, model="", service=""):
        return 4 * (usage.output or 0)

    worst = __call__


def letters():
    """Letters that were written."""
    return Letters()


def their_caseless(answer, reference):
    """The same text, whatever the case."""
    return float(answer is not None and answer.casefold() == reference.casefold())


def their_plain(task, lead=""):
    """The question alone, after some words."""
    return Style(lambda text: lead + text, lambda text: text.split("\n", 1)[0].strip() or None, "</think>")


class TheirSums:
    """Sums modulo 11."""

    name = "their-sums"

    def __init__(self, size, seed, most=10):
        rng = random.Random(seed)
        pairs = rng.sample([(a, b) for a in range(most + 1) for b in range(most + 1)], size)
        self.items = [
            Item(
                f"{a}+{b}",
                f"Modulo 11, from left to right: {a} + {b} =",
                str((a + b) % 11),
                entry={"their_larger": max(a, b)},
            )
            for a, b in pairs
        ]

    def verify(self, item, answer):
        return float(answer == item.answer)


def their_first_right(n=2):
    """The first right trace is the example."""

    async def build(task):
        drawn = await traces(task, n, most=200, temperature=1.0)
        return Built(tuple(example(task, trace.text) for trace in drawn if trace.right)[:1])

    return Builder(build)


def their_short():
    """Right, less a tenth of the share of the cap that was used."""
    return Reward(lambda state, rows: rows.correct - 0.1 * rows.length / rows.max_tokens)


DIGITS = declare(
    Column(
        "their_digits",
        "digits that were written",
        whole=True,
        needs=("text",),
        make=lambda rows: [sum(map(str.isdigit, text)) for text in rows.column("text", "their_digits")],
    ),
    "rollouts",
)
LARGER = declare(
    Column("their_larger", "the larger number of the sum", "train on the task their-sums", whole=True), "rollouts"
)


def their_thrift(digit=0.01):
    """Right, less a little for every digit beyond the larger number."""

    def score(state, rows):
        over = rows.column(DIGITS, "their-thrift") - rows.column(LARGER, "their-thrift")
        return rows.correct - digit * np.maximum(over, 0)

    return Reward(score, needs=(DIGITS, LARGER))


def their_late(length, group):
    """The tokens at the end of a row weigh more."""
    longest = int(length.max(initial=0))
    return np.arange(1.0, longest + 1) / np.maximum(length, 1)[:, None] ** 2 / max(len(length), 1)


def their_rows(length, group):
    """Every row weighs the same for each of its tokens."""
    return np.full(len(length), 1.0 / max(len(length), 1))


def their_signs(rollouts, view):
    """The sign of GRPO's advantage."""
    return np.sign(grpo_advantage(rollouts, view))


def their_first(tokens=4):
    """Only the first tokens of each row count."""
    return Importance(lambda rollouts, view: 1.0 * (np.cumsum(rollouts.sampled, axis=1) <= tokens) * rollouts.sampled)


def their_unclipped():
    """The ratio without a clip."""
    return lambda tokens: (tokens.logprob - tokens.old).exp() * tokens.advantage


def their_order():
    """Prompts in the order of their keys, again and again."""

    def pick(state, keys, count, seed):
        return np.argsort(np.array(keys), kind="stable")[(state + np.arange(count)) % len(keys)]

    return Stream(lambda: 0, pick, lambda state, keys, taken, outcomes: state + len(taken))


def their_nothing():
    """Nothing goes on."""
    return Carry(lambda waiting, rollouts, step: (np.zeros(len(rollouts), np.bool_), Beginnings.empty()))


def their_words(text="Now: "):
    """A word before every prompt."""
    return Variant(lambda state, view, rng: Variants(prefix=(text,) * int(view.plan.units.sum())))


def their_half():
    """Half as much at the end."""
    return lambda spent: 1 - 0.5 * spent


def their_oldest():
    """The oldest entries."""
    from budgeteer.cache import Score

    return Score(lambda cells, memory: -cells.slots.double())


def their_half_of_it():
    """Every head keeps half of what it may, or what it must."""
    from budgeteer.cache import Split

    def sizes(groups):
        has = [((scores > float("-inf")).sum(-1), (scores == float("inf")).sum(-1)) for scores in groups.scores]
        return tuple(
            (size[:, None] // 2).clamp(min=0).minimum(most).maximum(must)
            for size, (most, must) in zip(groups.size, has, strict=True)
        )

    return Split(sizes)


def their_fade():
    """What is kept gets a thousandth less of its value for each entry that was dropped."""
    from budgeteer.cache import Rest

    def fold(leaving):
        gone = (leaving.valid & ~leaving.keep).sum(-1)
        return leaving.keys, leaving.values * (0.999**gone)[..., None, None].to(leaving.values.dtype)

    return Rest(fold)


def advantage(rollouts, view):
    MARK.write_text("a run of theirs is busy")
    return SCALE * grpo_advantage(rollouts, view)


def broken(rollouts, view):
    while not MARK.exists():
        time.sleep(0.05)
    raise ValueError("their advantage is broken")


def recipe():
    """GRPO with an advantage of theirs."""
    return replace(grpo(), name="theirs", advantage=advantage)


def broken_recipe():
    """Fails in its first step."""
    return replace(grpo(), name="theirs-broken", advantage=broken)


def no_recipe():
    """Makes something else."""
    return 7


def their_shortest():
    """Keep the shortest pieces."""
    return by_score(lambda question, texts: np.array([-float(len(text)) for text in texts]))


@dataclass(frozen=True)
class TheirLine:
    """Weights of scores and mean costs."""

    score: object
    cost: object


def their_line():
    """Predict scores by a straight line."""

    def fit(outcomes, rng):
        return TheirLine(ridge(outcomes.x, outcomes.score, 1.0), outcomes.cost.mean(axis=0))

    def route(state, x, signal):
        check_width(x, len(state.score))
        return best(x @ state.score, np.tile(state.cost, (len(x), 1)))

    return Route(fit, route)


class TheirShort:
    """Short answers for all."""

    def __init__(self, cap):
        self.cap = cap

    async def before(self, ask, serving):
        ask.lower(self.cap)
        ask.notes.append(f"short={self.cap}")

    def after(self, ask, content, live):
        """Nothing to learn."""


@options(Option("cap", "a whole number from 1", REQUIRED, "output tokens", lambda table: table.whole("cap", least=1)))
def their_policy(*, cap):
    """Short answers for all."""
    return TheirShort(cap)


HERE = "theirs_of_a_test"
ALLOCATOR = Method(
    "their-uniform", "allocator", f"{HERE}:their_uniform", "the same for all", evidence="theirs_evidence"
)
ONLINE = Method(
    "their-threshold", "online", f"{HERE}:their_threshold", "a fixed price", arguments={"budget": 300, "price": 0.1}
)
JOINT = Method("their-search", "joint", f"{HERE}:their_search", "random choices")
ROUNDING = Method("their-rounding", "rounding", f"{HERE}:their_rounding", "systematic")
MATCHING = Method("their-matching", "matching", f"{HERE}:their_matching", "greedy")
ROUTER = Method("their-router", "router", f"{HERE}:their_router", "a price on load", arguments={"rate": 0.05})
ALLOWANCE = Method("their-allowance", "allowance", f"{HERE}:TheirAllowance", "counts its calls")
STEER = Method("their-steer", "steer", f"{HERE}:their_steer", "answered rows end")
STRATEGY = Method("their-direct", "strategy", f"{HERE}:their_direct", "one trace")
MANY = Method("their-turns", "many", f"{HERE}:their_turns", "one trace each")
AGGREGATOR = Method("their-count", "aggregator", f"{HERE}:their_count", "most samples")
SCORER = Method("their-brevity", "scorer", f"{HERE}:their_brevity", "short is good")
VERIFIER = Method("their-caseless", "verifier", f"{HERE}:their_caseless", "whatever the case")
METER = Method("letters", "meter", f"{HERE}:letters", "letters that were written")
REWARD = Method("their-short", "reward", f"{HERE}:their_short", "less for long rows")
THRIFT = Method("their-thrift", "reward", f"{HERE}:their_thrift", "less for many digits")
ADVANTAGE = Method("their-signs", "advantage", f"{HERE}:their_signs", "signs")
IMPORTANCE = Method("their-first", "importance", f"{HERE}:their_first", "the first tokens")
RATIO = Method("their-unclipped", "ratio", f"{HERE}:their_unclipped", "no clip")
STREAM = Method("their-order", "stream", f"{HERE}:their_order", "by key")
CARRY = Method("their-nothing", "carry", f"{HERE}:their_nothing", "nothing goes on")
VARIANT = Method("their-words", "variant", f"{HERE}:their_words", "a word first")
SCHEDULE = Method("their-half", "schedule", f"{HERE}:their_half", "half at the end")
WEIGHT = Method("their-rows", "weight", f"{HERE}:their_rows", "every row the same")
LATE = Method("their-late", "weight", f"{HERE}:their_late", "late tokens")
TUNING = Method("their-first-right", "tuning", f"{HERE}:their_first_right", "the first right trace")
STYLE = Method("their-plain", "style", f"{HERE}:their_plain", "the question alone")
TASK = Method("their-sums", "task", f"{HERE}:TheirSums", "sums modulo 11")
POLICY = Method("their-policy", "policy", f"{HERE}:their_policy", "short answers for all", arguments={"cap": 20})
SCORE = Method("their-oldest", "score", f"{HERE}:their_oldest", "the oldest entries")
SPLIT = Method("their-half-of-it", "split", f"{HERE}:their_half_of_it", "half of what may be kept")
REST = Method("their-fade", "rest", f"{HERE}:their_fade", "values of what is kept fade a little")
REDUCER = Method("their-shortest", "reducer", f"{HERE}:their_shortest", "the shortest pieces")
ROUTE = Method("their-line", "route", f"{HERE}:their_line", "a straight line")
RECIPE = Method("theirs", "recipe", f"{HERE}:recipe", "GRPO of theirs")
BROKEN = Method("theirs-broken", "recipe", f"{HERE}:broken_recipe", "fails in its first step")
NONE = Method("theirs-none", "recipe", f"{HERE}:no_recipe", "makes something else")
