"""Checkpoints: written atomically, and refused if they are damaged or belong to another run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from budgeteer.core.errors import CheckpointError
from budgeteer.rl.identity import differences


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: the file has the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(dict(content), part)
    os.replace(part, path)


def same_run(path: Path, identity: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that is damaged or belongs to another run; its weights are not read.

    Args:
        identity: of this run; names that it leaves out are not compared.

    Raises:
        CheckpointError: names what differs.
    """
    try:
        theirs = json.loads(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["identity"])
    except Exception as error:
        raise CheckpointError(f"cannot read checkpoint {path} ({error}); delete it to start afresh") from error
    mine = json.loads(json.dumps(dict(identity)))
    changed = differences(mine, {name: theirs.get(name) for name in mine})
    if changed:
        raise CheckpointError(f"{path} is of another run ({changed}); choose another folder, or delete it")
