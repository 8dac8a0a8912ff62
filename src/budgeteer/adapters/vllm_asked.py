"""What a request of vLLM says about steers, and what of that can be refused before an engine sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.registry import options_of
from budgeteer.core.spec import Spec, parse
from budgeteer.core.steer import Need, Steer, require_offered
from budgeteer.steer.kit import combine

PREFIX = "budgeteer_"
OFFERED = frozenset({Need.TOKENS, Need.MARKERS, Need.TEXT, Need.MARGIN, Need.LOGITS})
"""What a logits processor can show a steer: all but hidden states, and embeddings to feed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    Attributes:
        steers: with their options, the first one's word first.
        close: text that closes the thinking; None = that of the model's chat template.
        group: what its samples share; None = the request alone.
    """

    steers: tuple[str, ...]
    close: str | None = None
    group: str | None = None

    def check(self) -> None:
        """Refuse what no served model could do.

        Raises:
            InvalidInput: an unknown steer or option, one that needs hidden states, or a file of the server.
        """
        for text in self.steers:
            spec = _spec(text)
            if "head" not in options_of(registry.get("steer", spec.name)):
                self._made(spec)

    def steer(self, head: Callable[[str], Any]) -> Steer:
        """The steer, all of them combined.

        Args:
            head: name of a method -> the head that lies beside the served model.

        Raises:
            InvalidInput: it needs what vLLM does not show.
        """
        whole: Steer | None = None
        for text in self.steers:
            spec = _spec(text)
            needed = {"head": head(spec.name)} if "head" in options_of(registry.get("steer", spec.name)) else {}
            steer = self._made(spec, **needed)
            whole = steer if whole is None else combine(whole, steer)
        assert whole is not None
        return whole

    def _made(self, spec: Spec, **needed: Any) -> Steer:
        if needed:
            head = needed["head"]
            if head.reads == Need.HIDDEN:
                raise InvalidInput(
                    f"the head for {spec.name} reads hidden states, which vLLM's logits processors do not see; serve "
                    "the copy of the model that budgeteer heads train --form vocabulary writes"
                )
            steer: Steer = registry.load(registry.get("steer", spec.name))(head, **spec.values)
        else:
            steer = registry.make("steer", spec.name, **spec.values)
        require_offered(steer, OFFERED, "a logits processor of vLLM")
        return steer


def asked_of(extra: Mapping[str, Any] | None) -> Asked | None:
    """What the extra arguments of a request ask for; None = nothing.

    >>> asked_of({"budgeteer_steer": "budget-forcing:most=64", "budgeteer_close": "</think>"})
    Asked(steers=('budget-forcing:most=64',), close='</think>', group=None)
    >>> asked_of({"kv": 1}) is None
    True

    Raises:
        InvalidInput: an argument of ours that there is not, or of another kind than text.
    """
    ours = {key.removeprefix(PREFIX): value for key, value in (extra or {}).items() if key.startswith(PREFIX)}
    if not ours:
        return None
    if unknown := sorted(ours.keys() - {"steer", "close", "group"}):
        raise InvalidInput(f"{PREFIX}{unknown[0]} is none of {PREFIX}steer, {PREFIX}close and {PREFIX}group")
    steers = ours.get("steer", [])
    steers = [steers] if isinstance(steers, str) else list(steers) if isinstance(steers, list | tuple) else [None]
    texts = [*steers, ours.get("close", ""), ours.get("group", "")]
    if not steers or not all(isinstance(text, str) for text in texts):
        raise InvalidInput(
            f"{PREFIX}steer is {ours.get('steer')!r}; give a text such as budget-forcing:most=500, or a list of them, "
            f"and texts for {PREFIX}close and {PREFIX}group"
        )
    return Asked(tuple(steers), ours.get("close"), ours.get("group"))


def _spec(text: str) -> Spec:
    """A steer and its options.

    Raises:
        InvalidInput: it names a head, which would be a file of the server.
    """
    spec = parse(text, "steer")
    if "head" in spec.values:
        raise InvalidInput(
            f"{spec.name}: a request cannot name a file of the server; the head is the one in the folder heads of the "
            "served model, so leave head= out"
        )
    registry.get("steer", spec.name)
    return spec
