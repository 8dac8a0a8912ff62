"""What admins may do: their roles, and the paths at and below which these hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ADMIN, MANAGER, VIEWER = "admin", "manager", "viewer"
READ, READ_ALL, CHANGE = "read", "read all", "change"
"""What a route needs: to read what is below the own paths; to read what is of the whole gateway; to change keys below
the own paths."""
ROLES: Mapping[str, frozenset[str]] = {
    ADMIN: frozenset((READ, READ_ALL, CHANGE)),
    MANAGER: frozenset((READ, CHANGE)),
    VIEWER: frozenset((READ, READ_ALL)),
}
"""What each role may do at and below its paths; READ_ALL is for those whose role holds everywhere."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The accounts at and below some paths; the path "" is above all of them."""

    paths: tuple[str, ...]

    @property
    def everything(self) -> bool:
        """Whether these are all accounts."""
        return "" in self.paths

    def covers(self, path: str) -> bool:
        """Whether a path is one of these, or below one.

        >>> team = Reach(("acme/search",))
        >>> team.covers("acme/search/ada"), team.covers("acme/searching"), team.covers("acme")
        (True, False, False)
        """
        return any(not own or path == own or path.startswith(f"{own}/") for own in self.paths)

    def __str__(self) -> str:
        return ", ".join(self.paths)


EVERYTHING, NOTHING = Reach(("",)), Reach(())


@dataclass(frozen=True, slots=True)
class Grant:
    """A role, and the path at and below which it holds; "" = everywhere."""

    role: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Admin:
    """Somebody who has shown to be an admin.

    Attributes:
        name: who it is, for pages and for the record of changes.
        grants: the roles.
        by: how that was shown: "key" or "sign-in".
    """

    name: str
    grants: tuple[Grant, ...]
    by: str

    @property
    def reads(self) -> Reach:
        """What the admin sees."""
        return self._reach(READ)

    @property
    def changes(self) -> Reach:
        """Where the admin may make and change keys."""
        return self._reach(CHANGE)

    def _reach(self, need: str) -> Reach:
        return Reach(tuple(grant.path for grant in self.grants if need in ROLES[grant.role]))

    def may(self, need: str) -> bool:
        """Whether the admin may do this anywhere; for READ_ALL, everywhere."""
        reach = self._reach(need)
        return reach.everything if need == READ_ALL else bool(reach.paths)

    def __str__(self) -> str:
        roles = (f"{grant.role} of {grant.path}" if grant.path else grant.role for grant in self.grants)
        return f"{self.name}, {', '.join(dict.fromkeys(roles))}"
