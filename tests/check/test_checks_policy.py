"""The check of the gateway's policies: each rule against a policy that breaks it."""

from __future__ import annotations

import pytest

pytest.importorskip("orjson")

from budgeteer.check import CheckFailed, check_method, check_policy, policy_of
from budgeteer.core import registry
from budgeteer.core.method import Method
from budgeteer.gateway.policies import cache, tighten


class Polite:
    """Asks for brevity, and keeps every rule."""

    async def before(self, ask, serving):
        if ask.operation == "chat":
            ask.set("messages", [*ask.body["messages"], {"role": "system", "content": "Be brief."}])
            ask.added += 60
            ask.notes.append("polite")
            ask.lower(32)

    def after(self, ask, content, live):
        return None


SHARED = []


def broken(name):
    """``Polite`` with one rule broken."""

    class Broken(Polite):
        kept = None

        async def before(self, ask, serving):
            answer = await super().before(ask, serving)
            return await FAULTS[name](self, ask, serving) if name in FAULTS else answer

        def after(self, ask, content, live):
            if content and self.kept is None:
                Broken.kept = self.kept = content
            if name == "after raised":
                _ = content[0]

    return Broken


def fault(change):
    async def before(self, ask, serving):
        return change(self, ask)

    return before


def seen(self, ask):
    SHARED.append(ask.model)
    if len(SHARED) > 20:
        ask.notes.append("seen enough")


async def raises(self, ask, serving):
    raise ValueError("no")


FAULTS = {
    "before raised ValueError": raises,
    "return None, or the bytes": fault(lambda self, ask: "an answer"),
    "which is no JSON object": fault(lambda self, ask: b"[1"),
    "that asks for a stream with a whole answer": fault(lambda self, ask: b"{}"),
    "with what another key was answered": fault(lambda self, ask: None if ask.stream else self.kept),
    "changed behind ask.set": fault(lambda self, ask: ask.body.update(extra=1) if not ask.changed else None),
    "the bound has to count them": fault(lambda self, ask: ask.set("user", "x" * 400)),
    "a cap may be lowered": fault(lambda self, ask: ask.set("max_tokens", 90)),
    "ask.cap is 0": fault(lambda self, ask: ask.lower(0)),
    "the model 'other' is not served": fault(lambda self, ask: setattr(ask, "model", "other")),
    "left no note": fault(lambda self, ask: ask.notes.clear()),
    "cannot be a header": fault(lambda self, ask: ask.notes.append("a\nb")),
    "changed the key": fault(lambda self, ask: setattr(ask, "raw", b"{}")),
    "each keeps its own state": fault(seen),
    "no JSON any more": fault(lambda self, ask: ask.set("seen", {1})),
}


def test_a_policy_that_keeps_the_rules_passes():
    check_policy(Polite)
    check_policy(policy_of(tighten, {"least": 8}), seed=5)
    check_policy(policy_of(cache, {"sampled": True}))


@pytest.mark.parametrize("rule", [*FAULTS, "after raised"])
def test_each_broken_rule_is_caught(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_policy(broken(rule))


def test_every_policy_of_the_registry_is_checked():
    assert {method.name for method in registry.of("policy").values()} >= {"cache", "loop", "pace"}
    with pytest.raises(CheckFailed, match="left no note"):
        check_method(Method("quiet", "policy", f"{__name__}:quiet", "says nothing"))


def quiet():
    """Changes requests and says nothing."""
    return broken("left no note")()
