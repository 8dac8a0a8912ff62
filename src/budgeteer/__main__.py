"""``python -m budgeteer`` is the command ``budgeteer``."""

from __future__ import annotations

import sys

from budgeteer.cli import main

sys.exit(main())
