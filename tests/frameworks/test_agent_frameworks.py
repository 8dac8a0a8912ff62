"""Agents of real frameworks within a budget, each framework in a pinned environment: ``make test-frameworks``."""

from __future__ import annotations

import pytest

from helpers.frameworks import FRAMEWORKS, SCENARIOS, Framework, Program, arms_of, fault

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def programs():
    """A framework's program; that of the framework before is ended first, since the machine may be small."""
    running: dict[str, Program] = {}

    def of(framework: Framework) -> Program:
        if framework.name not in running:
            for name in list(running):
                running.pop(name).__exit__()
            running[framework.name] = Program(framework).__enter__()
        return running[framework.name]

    yield of
    for program in running.values():
        program.__exit__()


CASES = [(one, name, arm) for one in FRAMEWORKS for name in SCENARIOS for arm in arms_of(name) if arm != "own"]


@pytest.mark.parametrize(
    ("framework", "scenario", "arm"),
    CASES,
    ids=[f"{one.name}-{scenario}-{arm}" for one, scenario, arm in CASES],
)
def test_an_agent_stays_within_its_budget_and_does_some_work(programs, framework, scenario, arm):
    assert fault(programs(framework).do(scenario, arm)) == ""
