"""Limits of single models and of groups of models, on keys and scopes.

Such a limit counts in the account that has it, as a kind of units of its own: ``$5/day`` of the group ``cheap`` is a
limit of ``money.of.cheap``. A request reserves and settles these kinds together with the plain ones, with the same
units if the limit covers its model and with 0 if not, so all limits hold in one step of the ledger.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from budgeteer.core.amounts import OF, base
from budgeteer.core.errors import InvalidInput
from budgeteer.gateway.toml import Table
from budgeteer.ledger.limit import Limit

PerModel = tuple[tuple[str, tuple[Limit, ...]], ...]
"""(model or group, its limits), ordered by name."""
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_./+-]{0,39}")


def slug(name: str) -> str:
    """A model's or group's name as part of a kind of units; a name that cannot stand there gets a hash.

    >>> slug("gpt-4o"), slug("Qwen/Qwen3:8B")
    ('gpt-4o', 'qwen-qwen3-8b-b0fef674')
    """
    if _PLAIN.fullmatch(name):
        return name
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:24]
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def kinds_of(per_model: PerModel) -> tuple[Limit, ...]:
    """The limits of an account for its models and groups, each of a kind of its own."""
    return tuple(
        Limit(f"{limit.kind}{OF}{slug(name)}", limit.amount, limit.window)
        for name, limits in per_model
        for limit in limits
    )


@dataclass(frozen=True, slots=True)
class Groups:
    """The models of a gateway and the groups that its file makes of them.

    Attributes:
        models: the names of all models.
        groups: group -> its models.
    """

    models: frozenset[str] = frozenset()
    groups: Mapping[str, tuple[str, ...]] | None = None

    def members(self, part: str) -> tuple[str, ...] | None:
        """The models that a slug stands for; None if no model and no group has it."""
        for name, models in (self.groups or {}).items():
            if slug(name) == part:
                return models
        matching = tuple(model for model in self.models if slug(model) == part)
        return matching or None

    def check(self, names: Iterable[str]) -> None:
        """Check that each name is that of a model or group.

        Raises:
            InvalidInput: one is not; a limit of it would never count.
        """
        known = [*(self.groups or ()), *sorted(self.models)]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known[:20]) or 'none'}"
                raise InvalidInput(f"per_model names {name!r}, which is no model and no group of [groups]; {hint}")

    def covers(self, kind: str, model: str) -> bool:
        """Whether a kind counts requests of a model.

        A kind of a group that this file does not know, as another replica's file may, counts all of them: that is the
        safe side.
        """
        _, of, part = kind.partition(OF)
        if not of:
            return True
        members = self.members(part)
        return members is None or model in members

    def spread(self, amounts: Mapping[str, int], kinds: Collection[str], model: str) -> dict[str, int]:
        """Units of a request for the kinds that its accounts name.

        Args:
            amounts: units by plain kind.
            kinds: further kinds, of models and groups.
            model: the model that is called.
        """
        return {
            **amounts,
            **{kind: amounts.get(base(kind), 0) if self.covers(kind, model) else 0 for kind in kinds},
        }


def read_groups(table: Table, names: Mapping[str, str]) -> Groups:
    """The groups of models in a configuration.

    Args:
        table: ``[groups]``: a list of models for each name.
        names: name or alias of a model -> the model's name.

    Raises:
        InvalidInput: a group has the name of a model, is empty, or has an unknown model.
    """
    groups = {}
    for name in table.data:
        models = table.texts(name)
        if name in names:
            table.fail(name, "has the name of a model; give the group a name of its own")
        if not models:
            table.fail(name, "is empty; give the names of its models")
        for model in models:
            if model not in names:
                table.fail(name, f"has {model!r}, which no upstream serves; known: {', '.join(sorted(names))}")
        groups[name] = tuple(dict.fromkeys(names[model] for model in models))
    return Groups(frozenset(names.values()), groups)


def read_limits(table: Table, kinds: tuple[str, ...], groups: Groups) -> PerModel:
    """The limits of models and groups in a table ``per_model``: a list of limits for each name.

    Raises:
        InvalidInput: naming the field, its line and what is wrong with it.
    """
    limits_of = []
    for name in sorted(table.data):
        limits = table.parsed_all(name, Limit.parse)
        try:
            groups.check([name])
            limits_of.append((name, check(name, limits, kinds)))
        except InvalidInput as error:
            table.fail(name, str(error))
    return tuple(limits_of)


def check(name: str, limits: tuple[Limit, ...], kinds: tuple[str, ...]) -> tuple[Limit, ...]:
    """The limits of one model or group; raises InvalidInput if one cannot be counted."""
    for limit in limits:
        if limit.kind not in kinds:
            raise InvalidInput(
                f"per_model limits {limit.kind!r} of {name!r}, which is not counted; [ledger] kinds has "
                f"{', '.join(kinds)}"
            )
        if limit.amount is None:
            raise InvalidInput(f"per_model has {limit} for {name!r}, which limits nothing; leave it out")
        if len(f"{limit.kind}{OF}{slug(name)}") > 128:
            raise InvalidInput(f"per_model: the kind {limit.kind!r} is too long to be limited by model")
    seen = [(limit.kind, limit.window) for limit in limits]
    if len(set(seen)) < len(seen):
        raise InvalidInput(f"per_model has two limits of one kind and window for {name!r}; give one")
    return limits
