"""All pages of the dashboard. The script refreshes elements that have the attribute ``data-live`` in place."""

from __future__ import annotations

from starlette.responses import HTMLResponse, Response

from budgeteer.gateway.dashboard.budgets import Budgets
from budgeteer.gateway.dashboard.common import problem_of
from budgeteer.gateway.dashboard.html import page
from budgeteer.gateway.dashboard.keys import Keys
from budgeteer.gateway.dashboard.mine import Mine
from budgeteer.gateway.dashboard.overview import Overview


class Pages(Overview, Budgets, Keys, Mine):
    """The pages of one gateway's dashboard."""

    def login(self, problem: str, status: int = 200) -> Response:
        """The page that asks for the admin key or a key of one's own, with an error message if there is a problem."""
        return HTMLResponse(page("login", problem=problem_of(problem)), status)

    def trouble(self, status: int, message: str) -> Response:
        """The page that shows an error."""
        return HTMLResponse(page("trouble", message=message), status)
