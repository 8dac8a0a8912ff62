"""A key, a model and a metering for tests of single requests at the gateway."""

from __future__ import annotations

from budgeteer.gateway import keys
from budgeteer.gateway.config import Defaults, Model
from budgeteer.metering.call import Metering
from budgeteer.metering.estimate import Bounds

METERING = Metering(None)
MODEL = Model("m", (), "m-upstream", "m", Bounds(max_output=100, overhead=7))
KEY, _ = keys.make({"path": "a"}, Defaults((), (), (), (), ("*",), None, None, None), ("all",), 0)
