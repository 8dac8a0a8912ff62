"""One line: which answer the method makes out of several samples.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from budgeteer.core.errors import InvalidInput
from budgeteer.strategies.aggregator import Aggregator, Ranked


def firm_majority(margin: float = 0.0) -> Aggregator:
    """The most frequent answers first; a tie goes to the one seen first. Below ``margin`` the weight of the first is 0.

    Formula: weight = n / N of N samples with an answer; 0 for the first one if (n_1 - n_2) / N < margin.
    Helps when what is told of the answer's certainty counts; does not change which answer is first.

    Args:
        margin: lead of the first answer over the second, as a share of the samples, in [0, 1].

    Raises:
        InvalidInput: another margin.

    >>> firm_majority()(["7", None, "5", "7"], [])[0]
    Ranked(answer='7', weight=0.6666666666666666)
    """
    if not 0 <= margin <= 1:
        raise InvalidInput(f"firm_majority(margin={margin}); give 0 to 1")

    def rank(answers: Sequence[str | None], scores: Sequence[float]) -> list[Ranked]:
        count = Counter(answer for answer in answers if answer is not None)
        ranked = [Ranked(answer, n / count.total()) for answer, n in count.most_common()]
        if len(ranked) > 1 and ranked[0].weight - ranked[1].weight < margin:
            ranked[0] = ranked[0]._replace(weight=0.0)
        return ranked

    return rank
