"""What there are of heads: their kinds, and the forms of each."""

from __future__ import annotations

KINDS = {"budget_guidance": "guidance", "zip_rc": "zip-rc", "diffadapt_probe": "difficulty"}
"""Name of a head's file -> what ``budgeteer heads train`` calls it."""
FORMS = {"flat": 64, "layers": 768, "vocabulary": 0}
"""Form of a head, see :mod:`budgeteer.engine.head` -> its width unless another one is given."""
