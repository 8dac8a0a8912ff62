"""An attempt that is ready to be sent."""

from __future__ import annotations

from dataclasses import dataclass

from budgeteer.metering.reading import Reading
from budgeteer.metering.settlement import Planned


@dataclass(frozen=True, slots=True)
class Prepared:
    """An attempt that is ready to be sent.

    Attributes:
        content: the body to send.
        planned: the most that it can use and cost.
        likely: what it is expected to use and cost at the most, of a share of all calls; None = learnt limits are not
            counted.
        reading: reads the answer's usage.
        chose_cap: whether the request had no cap, so that the gateway chose one.
        notes: what was changed, such as the cap that was chosen, for the header x-budgeteer-policy.
        kind: the content type of the body.
    """

    content: bytes
    planned: Planned
    likely: Planned | None
    reading: Reading
    chose_cap: bool
    notes: tuple[str, ...]
    kind: str = "application/json"
