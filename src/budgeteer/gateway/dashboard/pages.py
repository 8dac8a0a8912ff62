"""All pages of the dashboard. The script refreshes elements that have the attribute ``data-live`` in place."""

from __future__ import annotations

from starlette.responses import HTMLResponse, Response

from budgeteer.gateway.dashboard.agents import Agents
from budgeteer.gateway.dashboard.budgets import Budgets
from budgeteer.gateway.dashboard.changes import Changes
from budgeteer.gateway.dashboard.common import problem_of
from budgeteer.gateway.dashboard.html import Html, narrow
from budgeteer.gateway.dashboard.keys import Keys
from budgeteer.gateway.dashboard.mine import Mine
from budgeteer.gateway.dashboard.overview import Overview


class Pages(Overview, Budgets, Agents, Keys, Changes, Mine):
    """The pages of one gateway's dashboard, as an admin or the holder of a key sees them."""


def login(problem: str, sign_in: Html, status: int = 200) -> Response:
    """The page that asks for the admin key or a key of one's own, with an error message if there is a problem.

    Args:
        problem: the message; "" = none.
        sign_in: the link to the provider where admins sign in.
        status: the HTTP status.
    """
    return HTMLResponse(narrow("login", "Log in", problem=problem_of(problem), sign_in=sign_in), status)


def trouble(status: int, message: str) -> Response:
    """The page that shows an error."""
    return HTMLResponse(narrow("trouble", "Trouble", message=message), status)
