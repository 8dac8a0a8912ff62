"""What an OpenAI-compatible endpoint honours, ignores or breaks, found out by a handful of small calls.

Servers ignore fields that they do not know, without a word: a thinking budget that is ignored is paid in full. Each
check here sends what a strategy would send and looks at what comes back. A check that needs another's result (a limit
of thinking shows only on a model that thinks longer) says so instead of guessing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from budgeteer.core.errors import InvalidInput
from budgeteer.core.urls import without_password
from budgeteer.models import _probe_checks as checks
from budgeteer.models._probe_calls import Endpoint
from budgeteer.models._probe_checks import Finding, Verdict
from budgeteer.models.chat import Chat, Message
from budgeteer.models.dialects import dialect_of

__all__ = ["Finding", "Report", "Verdict", "probe"]


@dataclass(frozen=True, slots=True)
class Report:
    """What a probe found.

    Attributes:
        url, model, dialect: that were asked; the dialect is the one that was given or found.
        findings: in the order of the checks.
        calls, input, output: what it cost, as the endpoint counts it, or by pieces where it does not.
    """

    url: str
    model: str
    dialect: str
    findings: tuple[Finding, ...]
    calls: int
    input: int
    output: int

    def verdict(self, feature: str) -> Verdict:
        """Of one feature; UNKNOWN if it was not tried."""
        return next((f.verdict for f in self.findings if f.feature == feature), Verdict.UNKNOWN)


async def probe(
    url: str,
    model: str,
    *,
    api_key: str = "none",
    dialect: str | None = None,
    timeout: float = 120.0,
    on_finding: Callable[[Finding], None] = lambda finding: None,
) -> Report:
    """Try an endpoint: about 20 calls of at most 256 tokens.

    Args:
        url: of the API, such as ``http://127.0.0.1:8080/v1``.
        model: name of the model there.
        api_key: sent as a bearer token.
        dialect: of the engine; None = each dialect that can limit thinking is tried until one is honoured.
        timeout: seconds of one call.
        on_finding: called with each finding.

    Raises:
        EndpointDown: nothing listens there.
        UnknownName: there is no such dialect.
        InvalidInput: the endpoint does not answer a plain chat.
    """
    if dialect is not None:
        dialect_of(dialect)
    end = Endpoint(url, model, api_key, timeout)
    findings: list[Finding] = []

    def add(finding: Finding) -> None:
        findings.append(finding)
        on_finding(finding)

    try:
        hello = await end.chat(Chat((Message("user", "Count from 1 to 40, in words."),)), 16, temperature=0.0)
        if hello.status != 200 or not (hello.pieces or hello.finish):
            said = f"{hello.status or ''} {hello.error}" if hello.status != 200 else "an answer without a choice"
            raise InvalidInput(
                f"{without_password(url)} does not answer a chat with the model {model!r}: {said}; give the address "
                "of its API (it ends in /v1 as a rule) and one of its models"
            )
        for check in (checks.cap, checks.usage):
            add(check(hello))
        for ask in (checks.choices, checks.seed, checks.stop, checks.logprobs, checks.raw_text):
            add(await ask(end))
        plain = await end.chat(Chat((Message("user", checks.QUESTION),)), checks.ROOM, temperature=0.0)
        add(checks.shows(plain))
        spoken = dialect or await checks.find_dialect(end, plain)
        for tried in (checks.switch, checks.effort, checks.budget, checks.beside_tools, checks.begun):
            add(await tried(end, spoken or "openai", plain))
        add(await checks.closed(end, plain))
    finally:
        await end.http.aclose()
    return Report(without_password(url), model, spoken or "openai", tuple(findings), end.calls, end.input, end.output)
