"""All pages. Parts whose element has ``data-live`` are renewed in place by the script."""

from __future__ import annotations

from starlette.responses import HTMLResponse, Response

from budgeteer.gateway.dashboard.budgets import Budgets
from budgeteer.gateway.dashboard.common import problem_of
from budgeteer.gateway.dashboard.html import page
from budgeteer.gateway.dashboard.keys import Keys
from budgeteer.gateway.dashboard.overview import Overview
from budgeteer.gateway.dashboard.requests import Requests


class Pages(Overview, Budgets, Requests, Keys):
    """Of one gateway."""

    def login(self, problem: str, status: int = 200) -> Response:
        """Asks for the admin key."""
        return HTMLResponse(page("login", problem=problem_of(problem)), status)

    def trouble(self, status: int, message: str) -> Response:
        """Says what went wrong."""
        return HTMLResponse(page("trouble", message=message), status)
