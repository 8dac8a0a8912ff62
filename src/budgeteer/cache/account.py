"""What a budgeted cache holds, measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Account:
    """What a cache holds, measured.

    Attributes:
        kept: entries that are held, one a token, layer and key-value head.
        total: entries that a cache without a budget would hold, padding included.
        bytes: of the storages that are held between calls: keys, values, slots, what a score remembers.
        full_bytes: of keys and values of ``total`` entries.
        peak_bytes: the most that was held at a time, with what a layer needs while it grows or is cut.
        packed: entries of ``kept`` that are held in fewer bits.
        cold_bytes: of entries in cold memory, beside ``bytes``; a method that retrieves chooses from them.
        computed: entries that layers were given, dropped or not; fewer than without a budget where a method lets tokens
            of a prompt end in a middle layer.
    """

    kept: int
    total: int
    bytes: int
    full_bytes: int
    peak_bytes: int
    packed: int = 0
    cold_bytes: int = 0
    computed: int = 0

    @property
    def share(self) -> float:
        """Entries held, of those of a full cache."""
        return self.kept / self.total if self.total else 0.0
