"""The gateway's configuration: a TOML file, read and checked into frozen dataclasses; docs/gateway.md describes it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from budgeteer.core.amounts import LEARNT
from budgeteer.core.errors import BudgeteerError, InvalidInput
from budgeteer.core.meter import meter
from budgeteer.gateway.admins import Admins, read_admins, read_secret
from budgeteer.gateway.alerts.rules import Rule, rules_of
from budgeteer.gateway.bounds import bounds_of
from budgeteer.gateway.conduct import Conduct, read_conduct, read_default
from budgeteer.gateway.hosts import public, read_address
from budgeteer.gateway.limits import AnyPrice, limits_of
from budgeteer.gateway.of_models import Groups, PerModel, kinds_of, read_groups, read_limits
from budgeteer.gateway.toml import Table, read
from budgeteer.gateway.translate.driver import Driver, read_driver
from budgeteer.ledger.address import kind_of
from budgeteer.ledger.limit import Limit, check_path
from budgeteer.metering.estimate import Bounds
from budgeteer.metering.reading import CAPS

REQUESTS, PARALLEL = "requests", "parallel"
"""Kinds that every gateway counts: a request uses 1 of the first, and reserves 1 of the second while it runs."""
_NEWER_CAP = ("api.openai.com", ".openai.azure.com")
BODY_PARTS = 50_000
"""Objects and arrays that a body may have, unless the file says otherwise."""
DIALECTS = ("openai", "anthropic", "both")


@dataclass(frozen=True, slots=True)
class Model:
    """A model of an upstream.

    Attributes:
        name, aliases: the names by which clients call it.
        upstream: its name at the upstream.
        price: its name in the price table.
        bounds: bounds of what its requests can use; ``max_output`` is the largest output cap.
        default_output: the output cap of requests without one; None = ``max_output``, LEARNT = learnt from answers.
        cap: the field in which its upstream takes the output cap of a chat completion.
        fields, media: ``allow_fields`` and ``media_hosts`` of its upstream.
        conduct: of its upstream.
        translated: whether its upstream has a driver.
    """

    name: str
    aliases: tuple[str, ...]
    upstream: str
    price: str
    bounds: Bounds
    cap: str = "max_tokens"
    fields: frozenset[str] = frozenset()
    media: tuple[str, ...] = ("*",)
    default_output: int | str | None = None
    conduct: Conduct = field(default_factory=Conduct)
    translated: bool = False


@dataclass(frozen=True, slots=True)
class Upstream:
    """An endpoint and its models.

    Attributes:
        name: its name in records and headers.
        base_url: its address, including ``/v1``.
        key: the API key that is sent to it; "" sends none.
        dialect: whose API it speaks: "openai", "anthropic" or "both".
        weight: how often it is chosen, relative to other upstreams of a model; 0: only if no other is healthy.
        connect_seconds, first_byte_seconds, idle_seconds: time-outs for the connection, for the first bytes of an
            answer, and for its next bytes.
        cancels: whether it stops a call when the connection closes. If not, a call whose client has left is read to
            its end, or charged in full.
        counts: whether it is asked to count the tokens of large requests (``messages/count_tokens``).
        models: the models that it serves.
        conduct: what it bills and says, and when nothing is sent to it.
        driver: how it is called, if it speaks none of these dialects; ``base_url`` may be "" then.
    """

    name: str
    base_url: str
    key: str = field(repr=False)
    dialect: str
    weight: int
    connect_seconds: float
    first_byte_seconds: float
    idle_seconds: float
    cancels: bool
    counts: bool
    models: tuple[Model, ...]
    conduct: Conduct = field(default_factory=Conduct)
    driver: Driver | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """Where the gateway listens, and what clients may send.

    Attributes:
        host, port: the address to listen on.
        admin_key: the key of the admin API and the dashboard; "" turns both off.
        open_metrics: whether /metrics needs no admin key.
        body_bytes, header_bytes: the largest body and headers; chunk headers and trailers count as headers.
        body_parts: objects and arrays that a body may have; it may have six times as many other values.
        receive_seconds: time for a client to send the headers, and again to send the body.
        strangers, stranger_seconds: how many connections without a valid key may be open at once, and for how long.
        send_seconds: time for a client to take a piece of an answer.
        drain_seconds, drains: for how long, and for how many requests at once, an answer is read on after its client
            has left.
        retries: further attempts after one that may have run (and is charged).
    """

    host: str
    port: int
    admin_key: str = field(repr=False)
    open_metrics: bool
    body_bytes: int
    body_parts: int
    header_bytes: int
    receive_seconds: float
    strangers: int
    stranger_seconds: float
    send_seconds: float
    drain_seconds: float
    drains: int
    retries: int


@dataclass(frozen=True, slots=True)
class Defaults:
    """Defaults of new keys; the fields are those of :class:`budgeteer.gateway.keys.Key`."""

    limits: tuple[Limit, ...]
    per_user: tuple[Limit, ...]
    per_session: tuple[Limit, ...]
    per_tag: tuple[Limit, ...]
    models: tuple[str, ...]
    max_input: int | None
    max_output: int | None
    max_reasoning: int | None
    per_model: PerModel = ()


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration of a gateway.

    Attributes:
        server: where it listens, and what clients may send.
        ledger: URL of the ledger; ``memory:`` keeps it in memory only.
        kinds: kinds of units that are metered; REQUESTS and PARALLEL are counted as well.
        learnt: those of ``kinds`` that are counted for learnt limits, too.
        ttl: seconds after which a reservation that is not renewed counts as abandoned, and is charged.
        keep: how many records of paid requests are kept.
        price_files, shipped_prices: files of prices, and whether those of genai-prices follow them.
        scopes: path -> limits of that account, those of models and groups included.
        defaults: of new keys.
        upstreams: the endpoints that requests are sent to.
        policies: name -> its TOML table, in the order of the file; the application builds the policies from them.
        alerts: the rules of ``[[alerts]]``.
        log: whether a JSON line is written for each request.
        prompts: whether that line has the prompt and the answer.
        otel: whether OpenTelemetry spans are recorded.
        groups: the names of models, and the groups that limits may name.
        admins: who administers it.
    """

    server: Server
    ledger: str
    kinds: tuple[str, ...]
    learnt: tuple[str, ...]
    ttl: int
    keep: int
    price_files: tuple[Path, ...]
    shipped_prices: bool
    scopes: Mapping[str, tuple[Limit, ...]]
    defaults: Defaults
    upstreams: tuple[Upstream, ...]
    policies: Mapping[str, Table]
    log: bool
    prompts: bool
    otel: bool
    alerts: tuple[Rule, ...]
    groups: Groups
    admins: Admins

    @property
    def counted(self) -> tuple[str, ...]:
        """All kinds of units that each reservation has."""
        return (*self.kinds, *(LEARNT + kind for kind in self.learnt), REQUESTS, PARALLEL)


def load(path: str | Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read and check a configuration file.

    Args:
        path: of the TOML file.
        environment: variables that hold the keys which the file names; None = those of the process.

    Raises:
        InvalidInput: naming the field, its line and what is wrong with it.
    """
    env = os.environ if environment is None else environment
    top = read(path)
    table = top.table("server")
    secret = read_secret(table, env)
    server = _server(table, env)
    admins = read_admins(top, server.admin_key, secret, env)
    ledger = top.table("ledger")
    url = ledger.text("url", "budgeteer-ledger.db")
    try:
        kind_of(url)
    except InvalidInput as error:
        ledger.fail("url", f"is not usable: {error}")
    named = ledger.texts("kinds", ("all",))
    kinds = tuple(kind for kind in named if not kind.startswith(LEARNT))
    learnt = tuple(kind.removeprefix(LEARNT) for kind in named if kind.startswith(LEARNT))
    for kind in kinds:
        if kind in (REQUESTS, PARALLEL):
            ledger.fail("kinds", f"has {kind!r}, which is always counted; leave it out")
        try:
            meter(kind, None if kind != "money" else AnyPrice())
        except BudgeteerError as error:
            ledger.fail("kinds", f"has {kind!r}: {error}")
    if not kinds or len(set(named)) < len(named):
        ledger.fail("kinds", f"is {list(named)!r}; give each kind once, such as all and money")
    if missing := [kind for kind in learnt if kind not in kinds]:
        ledger.fail("kinds", f"has {LEARNT}{missing[0]} without {missing[0]}; add {missing[0]!r} to it")
    ttl = ledger.whole("ttl", 600, least=60, most=86_400)
    keep = ledger.whole("records", 100_000, least=1000, most=10**8)
    ledger.done()
    prices = top.table("prices")
    folder = Path(path).parent
    files = tuple(folder / name for name in prices.texts("files"))
    shipped = prices.flag("shipped", True)
    prices.done()
    counted = (*named, REQUESTS, PARALLEL)
    upstreams = tuple(_upstream(table, env, counted) for table in top.tables("upstreams"))
    if not upstreams:
        top.fail("upstreams", "is missing; give at least one [[upstreams]] with base_url and models")
    names = [upstream.name for upstream in upstreams]
    if twice := {name for name in names if names.count(name) > 1}:
        top.fail("upstreams", f"has {', '.join(sorted(twice))} twice; give each upstream a name of its own")
    groups = read_groups(top.table("groups"), names_of(upstreams))
    scopes = {}
    for name, scope in top.table("scopes").named():
        try:
            check_path(name)
        except InvalidInput as error:
            scope.fail(None, str(error))
        per_model = read_limits(scope.table("per_model"), counted, groups)
        scopes[name] = (*limits_of(scope, "limits", counted), *kinds_of(per_model))
        scope.done()
    defaults = _defaults(top.table("defaults"), counted, groups)
    policies = dict(top.table("policies").named())
    alerts = rules_of(top.tables("alerts"), env, kinds, (*kinds, REQUESTS))
    logging = top.table("logging")
    log, otel = logging.flag("json", True), logging.flag("opentelemetry", False)
    prompts = logging.flag("prompts", False)
    if prompts and not log:
        logging.fail("prompts", "is true, but json = false leaves no line to write them to")
    logging.done()
    top.done()
    return Config(
        server, url, kinds, learnt, ttl, keep, files, shipped, scopes, defaults, upstreams, policies, log, prompts,
        otel, alerts, groups, admins,
    )  # fmt: skip


def _server(table: Table, env: Mapping[str, str]) -> Server:
    variable = table.text("admin_key_env", "BUDGETEER_ADMIN_KEY")
    admin = env.get(variable, "")
    if not admin.isascii():
        table.fail("admin_key_env", f"names {variable}, whose value is not plain ASCII, as headers have to be")
    if admin and len(admin) < 16:
        table.fail("admin_key_env", f"names {variable}, whose value has {len(admin)} characters; give 16 or more")
    server = Server(
        host=table.text("host", "127.0.0.1"),
        port=table.whole("port", 8400, most=65_535),
        admin_key=admin,
        open_metrics=table.flag("open_metrics", False),
        body_bytes=table.whole("body_bytes", 20_000_000, least=1000, most=10**9),
        body_parts=table.whole("body_parts", BODY_PARTS, least=1000, most=10**7),
        header_bytes=table.whole("header_bytes", 32_768, least=1000, most=10**7),
        receive_seconds=table.number("receive_seconds", 30, least=0.1),
        strangers=table.whole("strangers", 500, least=1, most=10**6),
        stranger_seconds=table.number("stranger_seconds", 10, least=0.1),
        send_seconds=table.number("send_seconds", 60, least=0.1),
        drain_seconds=table.number("drain_seconds", 60),
        drains=table.whole("drains", 100),
        retries=table.whole("retries", 1, most=10),
    )
    table.done()
    return server


def names_of(upstreams: Sequence[Upstream]) -> dict[str, str]:
    """Name or alias of a model -> the model's name; the first upstream that has the name decides."""
    names: dict[str, str] = {}
    for upstream in upstreams:
        for model in upstream.models:
            for name in (model.name, *model.aliases):
                names.setdefault(name, model.name)
    return names


def _defaults(table: Table, kinds: tuple[str, ...], groups: Groups) -> Defaults:
    defaults = Defaults(
        limits=limits_of(table, "limits", kinds),
        per_user=limits_of(table, "per_user", kinds),
        per_session=limits_of(table, "per_session", kinds),
        per_tag=limits_of(table, "per_tag", kinds),
        models=table.texts("models", ("*",)),
        max_input=table.whole("max_input", None, least=1),
        max_output=table.whole("max_output", None, least=1),
        max_reasoning=table.whole("max_reasoning", None),
        per_model=read_limits(table.table("per_model"), kinds, groups),
    )
    table.done()
    return defaults


def _upstream(table: Table, env: Mapping[str, str], kinds: tuple[str, ...]) -> Upstream:
    driver = read_driver(table)
    url, parts = read_address(table, driver is None)
    variable = table.text("key_env", None)
    if variable is not None and not env.get(variable):
        table.fail("key_env", f"names {variable}, which is not set in the environment")
    dialect = table.text("dialect", "openai" if driver is None else "both", DIALECTS)
    # OpenAI's reasoning models refuse the older name of the cap; many other servers do not know the newer one
    newer = driver is None and (parts.hostname or "").endswith(_NEWER_CAP)
    cap = table.text("cap", "max_completion_tokens" if newer else "max_tokens", CAPS["chat"])
    # a provider outside fetches from its own network; a server inside would fetch from ours
    outside = parts.scheme == "https" and public(parts.hostname or "") if url else driver != Driver("ollama")
    media = tuple(host.casefold() for host in table.texts("media_hosts", ("*",) if outside and driver is None else ()))
    fields = frozenset(table.texts("allow_fields"))
    conduct = read_conduct(table, lambda table, name: limits_of(table, name, kinds))
    models = [
        replace(_model(model_table, dialect, cap, fields, media, outside, conduct), translated=driver is not None)
        for model_table in table.tables("models")
    ]
    if not models:
        table.fail("models", "is missing; give at least one [[upstreams.models]] with a name")
    names = [name for model in models for name in (model.name, *model.aliases)]
    if twice := {name for name in names if names.count(name) > 1}:
        table.fail("models", f"has {', '.join(sorted(twice))} twice")
    counts = table.flag("count_tokens", False)
    if counts and dialect == "openai":
        table.fail("count_tokens", "is true, but only Anthropic's API has messages/count_tokens; leave it out")
    upstream = Upstream(
        name=table.text("name"),
        base_url=url,
        key=env.get(variable, "") if variable else "",
        dialect=dialect,
        weight=table.whole("weight", 1, most=1000),
        connect_seconds=table.number("connect_seconds", 5, least=0.01),
        first_byte_seconds=table.number("first_byte_seconds", 300, least=0.01),
        idle_seconds=table.number("idle_seconds", 120, least=0.01),
        cancels=table.flag("cancels", False),
        counts=counts,
        models=tuple(models),
        conduct=conduct,
        driver=driver,
    )
    table.done()
    return upstream


def _model(
    table: Table,
    dialect: str,
    cap: str,
    fields: frozenset[str],
    media: tuple[str, ...],
    outside: bool,
    conduct: Conduct,
) -> Model:
    name = table.text("name")
    bounds = bounds_of(table, dialect, outside)
    default = read_default(table, bounds.max_output or 1)
    upstream, price = table.text("upstream", name), table.text("price", name)
    model = Model(name, table.texts("aliases"), upstream, price, bounds, cap, fields, media, default, conduct)
    table.done()
    return model
