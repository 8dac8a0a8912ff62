"""The combination of pieces that a reranker likes best within the budget, by Monte Carlo tree search.

Paper: "CORAG: A Cost-Constrained Retrieval Optimization System for Retrieval-Augmented Generation" (later CARROT),
arXiv 2411.00744.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from budgeteer.context.fill import Sizes, scores_of
from budgeteer.context.pieces import talk_of
from budgeteer.context.protocol import Count, Message, Reducer, Rerank
from budgeteer.context.search_agent import Configure, Setting
from budgeteer.core.errors import InvalidInput

Choice = tuple[int, ...]
"""Numbers of pieces, in the order in which they stand in the prompt."""


def rising(choice: Choice) -> Choice:
    """The pieces in the order of the text."""
    return tuple(sorted(choice))


@dataclass(slots=True)
class _Node:
    choice: Choice
    cost: int
    reward: float = 0.0
    visits: int = 0
    children: list[_Node] | None = field(default=None)


def carrot(
    rerank: Rerank,
    candidates: int = 40,
    iterations: int = 30,
    explore: float = 2.0,
    frugality: float = 0.2,
    orders: bool = False,
    configure: Configure | None = None,
) -> Reducer:
    """Search for the combination of pieces whose joined text the reranker scores highest, within the budget.

    Formula: from the root go to the child with the largest R/N + explore sqrt(ln N(parent) / N) - frugality cost/budget
    until a node without children; give it all children at once (one piece more each, within the budget), score them in
    one batch and add each score to the node and all above it. The best node that was ever scored wins, so fewer pieces
    may win: a reranker's score is neither additive nor monotone. R is scaled to 0 to 1 by the scores seen so far.
    Pieces stand in the prompt in the order of the text; with ``orders`` a node is an ordered list, as in the paper, and
    pieces of a message stand in the order in which they were added (messages and their parts keep their
    places). The paper's network that chooses reranker and numbers by question is
    :func:`budgeteer.context.search_agent.trained`.
    Helps when pieces repeat or distract each other; does not where a reranker's score just adds up. The reranker reads
    up to candidates x iterations texts, many times the tokens that it saves.

    Args:
        rerank: (question, texts) -> scores.
        candidates: pieces of the highest scores alone that take part, 1 or more.
        iterations: of the search, 1 or more.
        explore: weight of what was seldom tried, 0 or more.
        frugality: what the whole budget costs, in units of the scaled score, 0 or more.
        orders: whether the order of the pieces of a message is searched, too; a search of as many iterations then has
            a larger tree.
        configure: says the reranker, iterations, explore and frugality of each question instead; None = those given.

    >>> from budgeteer.context.encode import cosine, words
    >>> from budgeteer.context.protocol import counter
    >>> said = ("The cat is big.", "The cat is big.", "It rains.", "Is the cat big?")
    >>> talk = [{"role": "user", "content": text} for text in said]
    >>> found = carrot(cosine(words))(talk, 50, counter(lambda text: len(text.split())))
    >>> "It rains." in [message["content"] for message in found]
    False
    """
    if not (candidates >= 1 and iterations >= 1 and explore >= 0 and frugality >= 0):
        raise InvalidInput(
            f"carrot:candidates={candidates},iterations={iterations},explore={explore},frugality={frugality}; give the "
            "first two from 1 and the others from 0"
        )

    def reduce(messages: Sequence[Message], budget: int, count: Count) -> list[Message]:
        talk = talk_of(messages)
        room = budget - talk.bare(budget, count)
        if not talk.pieces:
            return talk.keep(())
        asked, setting = rerank, Setting("", explore, iterations, frugality)
        if configure is not None:
            asked, setting = configure(talk.question)
        alone = scores_of(asked, talk.question, talk.texts)
        first = sorted(np.argsort(-alone, kind="stable")[:candidates].tolist())
        sizes = Sizes(talk, count)
        stay = {talk.group[number] for number in talk.fixed | talk.held}

        def cost(choice: Choice) -> int:
            groups = {talk.group[talk.pieces[number].message] for number in choice} - stay
            return sum(map(sizes.piece, choice)) + sum(map(sizes.group, groups))

        def score(choices: Sequence[Choice]) -> list[float]:
            texts = ["".join(talk.lines(choice)) for choice in choices]
            return [float(value) for value in scores_of(asked, talk.question, texts)]

        def by_part(choice: Choice) -> Choice:
            return tuple(sorted(choice, key=lambda number: (talk.pieces[number].message, talk.pieces[number].part)))

        def kept(choice: Choice) -> list[Message]:
            if choice == rising(choice):
                return talk.keep(choice)
            # with a blank at the end of each, since another piece may follow now
            return talk.keep(dict(zip(choice, talk.lines(choice), strict=True)), ordered=True)

        arrange = by_part if orders else rising
        scored = search(first, cost, score, room, setting.iterations, setting.explore, setting.frugality, arrange)
        ranked = sorted(scored, key=lambda choice: (-scored[choice], len(choice), choice))
        return next((found for choice in ranked if count(found := kept(choice)) <= budget), talk.keep(()))

    return reduce


def search(
    pieces: Sequence[int],
    cost: Callable[[Choice], int],
    score: Callable[[Sequence[Choice]], list[float]],
    budget: int,
    iterations: int,
    explore: float,
    frugality: float,
    arrange: Callable[[Choice], Choice] = rising,
) -> dict[Choice, float]:
    """The search: every choice that was scored, with its score.

    Args:
        pieces: that may be chosen.
        cost: of a choice.
        score: of choices, higher is better; a choice is scored once.
        budget: that no choice is above.
        iterations, explore, frugality: as in :func:`carrot`.
        arrange: gives the order in which the pieces of a choice stand, whose newest piece is its last.
    """
    scored: dict[Choice, float] = {}
    root = _Node((), 0)
    low, high = math.inf, -math.inf

    def worth(parent: _Node, child: _Node) -> float:
        mean = (child.reward / child.visits - low) / (high - low) if high > low else 0.0
        curious = explore * math.sqrt(math.log(parent.visits) / child.visits)
        return mean + curious - frugality * child.cost / max(1, budget)

    for _ in range(iterations):
        path = [root]
        while path[-1].children:
            parent = path[-1]
            path.append(max(parent.children or (), key=lambda child, parent=parent: worth(parent, child)))
        leaf = path[-1]
        if leaf.children is None:
            more = [arrange((*leaf.choice, piece)) for piece in pieces if piece not in leaf.choice]
            leaf.children = [_Node(choice, spent) for choice in more if (spent := cost(choice)) <= budget]
            new = [child.choice for child in leaf.children if child.choice not in scored]
            scored.update(zip(new, score(new) if new else [], strict=True))
            for child in leaf.children:
                child.reward, child.visits = scored[child.choice], 1
                low, high = min(low, child.reward), max(high, child.reward)
        if not leaf.children and leaf is root:
            break  # no piece fits
        gained = [child.reward for child in leaf.children] or [scored[leaf.choice]]
        for node in path:
            node.reward += sum(gained)
            node.visits += len(gained)
    return scored
