"""The pages, one function each. Parts whose element has ``data-live`` are renewed in place by the script."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from budgeteer.core.meter import MONEY
from budgeteer.draw.svg import Part, stacked_bar
from budgeteer.gateway.config import PARALLEL, Config
from budgeteer.gateway.dashboard import charts
from budgeteer.gateway.dashboard.amounts import amount, dollars, lasting, short, when
from budgeteer.gateway.dashboard.api import Api, Trouble
from budgeteer.gateway.dashboard.charts import Burn
from budgeteer.gateway.dashboard.forecast import pace
from budgeteer.gateway.dashboard.html import Html, join, link, options, page, table, tag
from budgeteer.ledger.limit import bucket, start
from budgeteer.ledger.protocol import wall_clock

RANGES = {
    "15m": ("15 minutes", 900, 15),
    "1h": ("hour", 3600, 60),
    "24h": ("24 hours", 86_400, 1800),
    "7d": ("7 days", 604_800, 10_800),
    "30d": ("30 days", 2_592_000, 43_200),
}
"""Name -> what it is called, its seconds, those of a bar."""
BY = ("stage", "model", "key", "scope", "user", "session", "tag", "upstream", "operation")
_FILTERS = ("key", "model", "stage", "outcome", "status", "path", "refused")
_NO_NAMES: Mapping[str, str] = {}
_GOOD = ("ok", "cached")
_LIMIT_FIELDS = ("limits", "per_user", "per_session", "per_tag")
_CAPS = ("max_input", "max_output", "max_reasoning")
_ROWS = 100
_LIMITS = 300
"""Budgets listed at most."""
_FINE = 240
"""Steps that a budget's past is read in."""


class Pages:
    """Of one gateway."""

    def __init__(self, api: Api, config: Config) -> None:
        self._api = api
        self._kinds = [kind for kind in config.counted if kind != PARALLEL]
        self._kind = MONEY if MONEY in config.kinds else config.kinds[0]

    # around every page

    def _page(self, token: str, title: str, body: Html, here: str, status: int = 200) -> Response:
        places = (("/", "Overview"), ("/budgets", "Budgets"), ("/requests", "Requests"), ("/keys", "Keys"))
        menu = join(
            tag('<a href="$path"$on>$name</a>', path=path, name=name,
                on=Html(' aria-current="page"' if path == here else ""))
            for path, name in places
        )  # fmt: skip
        return HTMLResponse(page("frame", title=title, menu=menu, token=token, body=body), status)

    def login(self, problem: str, status: int = 200) -> Response:
        """Asks for the admin key."""
        return HTMLResponse(page("login", problem=_problem(problem)), status)

    def trouble(self, status: int, message: str) -> Response:
        """Says what went wrong."""
        return HTMLResponse(page("trouble", message=message), status)

    # what is spent

    async def overview(self, request: Request, token: str) -> Response:
        """Where the units go."""
        asked = request.query_params
        span = asked.get("range", "15m")
        by, kind, path = asked.get("by", "stage"), asked.get("kind", self._kind), asked.get("path", "")
        if span not in RANGES or by not in BY or kind not in self._kinds:
            raise Trouble(400, "There is no such range, grouping or kind.")
        said, seconds, step = RANGES[span]
        now = wall_clock()
        times = _times(now, seconds, step)
        about = {"since": times[0], "path": path}
        ask = self._api.get
        total, over_time, models, stages, scopes, reasons, wasted, live, refused, names = await asyncio.gather(
            ask("summary", **about),
            ask("spend", by=f"time,{by}", kind=kind, step=step, **about),
            ask("spend", by="model", kind=kind, **about),
            ask("spend", by="stage", kind=kind, **about),
            ask("spend", by="scope", kind=kind, **about),
            ask("spend", by="reason,scope", kind="requests", refused=1, **about),
            ask("spend", by="outcome", kind="wasted", **about),
            ask("live"),
            ask("requests", refused=1, limit=8, **about),
            self._names(),
        )
        rows = over_time["rows"]
        if by == "key":
            rows = [{**row, "key": names.get(row["key"], row["key"])} for row in rows]
        drawn = charts.stacks(rows, by, times)
        chart = charts.bars(drawn, times, step * 1000, lambda units: short(kind, units), f"{_named(kind)} by {by}")
        return self._page(token, "Overview", page(
            "overview", cards=self._cards(total), chart=chart, kind=_named(kind), by=by, said=said,
            ranges=options(((name, f"last {text}") for name, (text, _, _) in RANGES.items()), span),
            kinds=options(((one, _named(one)) for one in self._kinds), kind), bys=options(((b, b) for b in BY), by),
            path=path, live=self._live(live["live"], names, now, path), reasons=_reasons(reasons["rows"], about, names),
            refused=self._rows(refused["requests"], names, "Nothing was refused."),
            wasted=_wasted(wasted["rows"], total["wasted"], total["input"] + total["output"]),
            models=self._spent(models["rows"], "model", kind, times[0]),
            stages=self._spent(stages["rows"], "stage", kind, times[0]),
            scopes=self._spent(scopes["rows"], "scope", kind, times[0], names),
            upstreams=_upstreams(total["upstreams"]),
        ), "/")  # fmt: skip

    async def _names(self) -> dict[str, str]:
        """Ids of keys -> names for people."""
        return {key["id"]: key["name"] or key["id"] for key in (await self._api.get("keys"))["keys"]}

    def _cards(self, total: dict[str, Any]) -> Html:
        over = {kind: units for kind, units in total["overshoot"].items() if units}
        said = ", ".join(
            f"{amount(kind, units)} {'' if kind == MONEY else kind}".strip() for kind, units in over.items()
        )
        tokens = total["input"] + total["output"]
        cards = [
            ("spent", dollars(total["money"]), f"{tokens:,} tokens", "") if MONEY in self._kinds
            else ("tokens", f"{tokens:,}", f"{total['input']:,} in, {total['output']:,} out", ""),
            ("requests", f"{total['requests']:,}", f"{total['live']:,} live", ""),
            ("refused", f"{total['refused']:,}", "told why", ""),
            ("failed or cut", f"{total['failed']:,}", f"{total['estimated']:,} estimated", ""),
            ("overshoot", said or "0", "beyond what was reserved" if over else "as it should be",
             "bad" if over else "good"),
            ("wasted tokens", f"{total['wasted']:,}", f"{total['wasted'] / max(1, tokens):.1%} of all", ""),
        ]  # fmt: skip
        if total["saved"]:
            main = amount(self._kind, total["saved"].get(self._kind, 0))
            cards.append(("saved", main, f"{_named(self._kind)}, by the cache", "good"))
        if total.get("records_dropped"):
            cards.append(("records dropped", f"{total['records_dropped']:,}", "the store was away too long", "bad"))
        form = '<div class="card $css"><div class="what">$what</div><div class="much">$much</div>'
        form += '<div class="sub">$more</div></div>'
        return join(tag(form, what=what, much=much, more=more, css=css) for what, much, more, css in cards)

    def _spent(
        self, rows: Sequence[dict[str, Any]], by: str, kind: str, since: int, names: Mapping[str, str] = _NO_NAMES
    ) -> Html:
        total = sum(row["units"] or 0 for row in rows) or 1
        filters = {"scope": "path"}
        shown = [
            (
                link(_path(row[by], names) or "none", "/requests", **{filters.get(by, by): row[by], "since": since}),
                amount(kind, row["units"] or 0), f"{(row['units'] or 0) / total:.1%}", f"{row['requests']:,}",
                f"{row['refused']:,}",
            )
            for row in rows[:12]
        ]  # fmt: skip
        heads = ("account" if by == "scope" else by, _named(kind), "share", "requests", "refused")
        return table(heads, shown, "Nothing yet.", heads[1:])

    def _live(self, rows: Sequence[dict[str, Any]], names: dict[str, str], now: int, path: str) -> Html:
        inside = [row for row in rows if not path or f"{row['path']}/".startswith(f"{path}/")]
        shown = [
            (
                link(names.get(row["key"], row["key"]) or "...", f"/keys/{quote(row['key'])}"),
                row["stage"], row["model"], row["upstream"], lasting(row["ms"]),
            )
            for row in sorted(inside, key=lambda row: row["at"])[:20]
        ]  # fmt: skip
        more = Html("") if len(inside) <= 20 else tag('<p class="note">and $n more</p>', n=len(inside) - 20)
        return join(
            (table(("key", "stage", "model", "upstream", "for"), shown, "No request is under way.", ("for",)), more)
        )

    def _rows(self, rows: Sequence[dict[str, Any]], names: dict[str, str], empty: str) -> Html:
        """Records, one a line."""
        shown = [
            (
                link(when(row["at"]), f"/requests/{quote(row['id'])}"),
                link(names.get(row["key"], row["key"]), f"/keys/{quote(row['key'])}") if row["key"] else "",
                row["stage"], row["model"], _outcome(row), row["reason"], f"{row['input']:,}", f"{row['output']:,}",
                *((amount(self._kind, row["units"].get(self._kind, 0)),) if self._kind == MONEY else ()),
                lasting(row["ms"]),
            )
            for row in rows
        ]  # fmt: skip
        numbers = ("in", "out", *((_named(MONEY),) if self._kind == MONEY else ()), "took")
        return table(("time (UTC)", "key", "stage", "model", "outcome", "reason", *numbers), shown, empty, numbers)

    # budgets

    async def budgets(self, request: Request, token: str) -> Response:
        """All limits, the fullest first."""
        path = request.query_params.get("path", "")
        found, names = await asyncio.gather(self._api.get("balances", path=path), self._names())
        limited = [row for row in found["balances"] if row["limit"] is not None]
        limited.sort(key=lambda row: -(row["settled"] + row["reserved"]) / max(1, row["limit"]))
        more = (
            f"The fullest {_LIMITS:,} of {len(limited):,}." if len(limited) > _LIMITS else f"{len(limited):,} limits."
        )
        body = page("budgets", path=path, limits=self._balances(limited[:_LIMITS], names), more=more)
        return self._page(token, "Budgets", body, "/budgets")

    def _balances(self, rows: Sequence[dict[str, Any]], names: dict[str, str]) -> Html:
        shown = []
        for row in rows:
            kind, limit = row["kind"], row["limit"]
            used, held = row["settled"], row["reserved"]
            said = f"{amount(kind, used)} used, {amount(kind, held)} held of {amount(kind, limit)}"
            parts = [Part("held", held, f"{amount(kind, held)} held")]
            parts.insert(0, Part("full" if used + held >= limit else "used", used, f"{amount(kind, used)} used"))
            bar = Html(stacked_bar(parts, whole=max(limit, used + held, 1), label=said))
            over = tag('<b class="bad">$x</b>', x=amount(kind, row["overshoot"])) if row["overshoot"] else "0"
            resets = lasting(row["resets"] - wall_clock()) if row["resets"] else ""
            shown.append((
                link(_path(row["path"], names), "/budget", path=row["path"], kind=kind, window=row["window"]),
                _named(kind), _window(row["window"]), bar, amount(kind, row["left"]), amount(kind, limit), resets, over,
            ))  # fmt: skip
        heads = ("account", "kind", "per", "used and held", "left", "limit", "resets in", "overshoot")
        return table(heads, shown, "No limits: nothing stops anybody.", heads[4:])

    async def budget(self, request: Request, token: str) -> Response:
        """One limit: how it burns down, and how that will go on."""
        asked = request.query_params
        path, kind, window = asked.get("path", ""), asked.get("kind", ""), asked.get("window", "")
        found, names = await asyncio.gather(self._api.get("balances", path=path), self._names())
        same = (
            row for row in found["balances"]
            if (row["path"], row["kind"], row["window"]) == (path, kind, window) and row["limit"] is not None
        )  # fmt: skip
        row = next(same, None)
        if row is None:
            raise Trouble(404, "There is no such limit.")
        title = _path(path, names)
        drawn, facts = await self._burn(row)
        limit = amount(kind, row["limit"]) + ("" if kind == MONEY else f" {_named(kind)}")
        return self._page(token, title, page(
            "budget", title=title, limit=limit,
            window=_window(window), bar=self._balances([row], names), chart=drawn, facts=facts,
            requests=link("its requests", "/requests", path=path),
        ), "/budgets")  # fmt: skip

    async def _burn(self, row: dict[str, Any]) -> tuple[Html, Html]:
        """The drawing of a limit, and what follows from it."""
        path, kind, window = row["path"], row["kind"], row["window"]
        now = wall_clock()
        if window.endswith(" s"):
            return Html(""), tag('<p class="note">Rolling: units come back $window after they were spent.</p>',
                                 window=_window(window))  # fmt: skip
        if window:
            begins, ends = start(window, bucket(window, now)), row["resets"]
        else:
            oldest = (await self._api.get("spend", by="time", kind="requests", path=path, step=60))["rows"]
            begins = max(oldest[0]["time"] if oldest else now - 60_000, now - 30 * 86_400_000)
            ends = now + max(60_000, now - begins)
        step = max(1, -(-(now - begins) // 1000 // _FINE))
        rows = (await self._api.get("spend", by="time", kind=kind, path=path, since=begins, step=step))["rows"]
        if window and rows and rows[0]["time"] > begins + 60_000:
            step = max(1, -(-(now - rows[0]["time"]) // 1000 // _FINE))  # it began within the window
            rows = (await self._api.get("spend", by="time", kind=kind, path=path, since=begins, step=step))["rows"]
        wide = step * 1000
        units = {one["time"]: one["units"] or 0 for one in rows}
        first = min(units, default=now) // wide * wide
        times = range(first, now - wide + 1, wide)
        fine = [units.get(at, 0) for at in times]
        # The ledger knows best what is used; records say when.
        used = row["settled"] - sum(units.values())
        past = [(begins, float(max(0, used)))]
        for at in (*times, times[-1] + wide if times else first):
            past.append((max(begins, at), float(max(0, used))))
            used += units.get(at, 0)
        past.append((now, float(row["settled"])))
        seen = pace(fine)
        if seen is None:
            burn = Burn(past, (), row["limit"], begins, ends)
            text = "Too little was spent in this window to forecast it."
            return charts.burn_down(burn, lambda u: short(kind, u), "left"), tag('<p class="note">$t</p>', t=text)
        found, wide_slices = seen
        slice_ms = wide * wide_slices
        grid = [now + (ends - now) * n / 60 for n in range(61)]
        ahead = []
        for at in grid:
            low, mean, high = found.ahead((at - now) / slice_ms)
            ahead.append((int(at), *(row["settled"] + more for more in (low, mean, high))))
        burn = Burn(past, ahead, row["limit"], begins, ends)
        drawing = charts.burn_down(burn, lambda u: short(kind, u), f"what is left of {amount(kind, row['limit'])}")
        return drawing, _facts(row, ahead, now, found.mean / slice_ms * 60_000)

    # requests

    async def requests(self, request: Request, token: str) -> Response:
        """Requests, newest first."""
        asked = {name: request.query_params.get(name, "") for name in (*_FILTERS, "since", "until", "before")}
        found, names = await asyncio.gather(self._api.get("requests", limit=_ROWS, **asked), self._names())
        older = Html("")
        if len(found["requests"]) == _ROWS:
            older = link("older", "/requests", **{**asked, "before": found["next"]})
        keys = [("", "any"), *((name, said) for name, said in names.items())]
        outcomes = [("", "any"), *((one, one) for one in ("ok", "cut", "left", "failed", "refused", "cached"))]
        return self._page(token, "Requests", page(
            "requests", rows=self._rows(found["requests"], names, "No such request."), older=older,
            csv=link("CSV", "/requests.csv", **{**asked, "before": ""}), keys=options(keys, asked["key"]),
            outcomes=options(outcomes, asked["outcome"]),
            **{name: asked[name] for name in ("model", "stage", "path", "since")},
        ), "/requests")  # fmt: skip

    async def csv(self, request: Request, token: str) -> Response:
        """The same as a file."""
        asked: dict[str, object] = {name: request.query_params.get(name, "") for name in (*_FILTERS, "since", "until")}
        status, content = await self._api.raw("GET", "requests.csv", asked)
        if status != 200:
            raise Trouble(status, json.loads(content)["error"]["message"])
        named = {"content-disposition": 'attachment; filename="requests.csv"'}
        return Response(content, headers=named, media_type="text/csv")

    async def request(self, request: Request, token: str) -> Response:
        """All that is known of one request."""
        name = request.path_params["id"]
        found, names = await asyncio.gather(self._api.get(f"requests/{name}"), self._names())
        record = found["request"]
        heads = ("kind", "reserved", "charged", "overshoot", "saved")
        parts = ("reserved", "units", "overshoot", "saved")
        kinds = sorted({kind for part in parts for kind in record[part]})
        rows = [(_named(kind), *(amount(kind, record[part].get(kind, 0)) for part in parts)) for kind in kinds]
        facts = [
            ("outcome", _outcome(record)), ("reason", record["reason"]), ("refused by", record["scope"]),
            ("time (UTC)", when(record["at"])), ("took", lasting(record["ms"])),
            ("first bytes after", lasting(record["first_ms"])), ("key", link(
                names.get(record["key"], record["key"]), f"/keys/{quote(record['key'])}") if record["key"] else ""),
            ("account", record["path"]), ("user", record["user"]), ("session", record["session"]),
            ("tag", record["tag"]), ("stage", record["stage"]), ("operation", record["operation"]),
            ("model", record["model"]), ("answered by", record["answered"]), ("upstream", record["upstream"]),
            ("streamed", "yes" if record["stream"] else "no"), ("attempts", f"{record['attempts']:,}"),
            ("policies", record["policy"]), ("input tokens", f"{record['input']:,}"),
            ("of these cached", f"{record['cached']:,}"), ("output tokens", f"{record['output']:,}"),
            ("of these reasoning", f"{record['reasoning']:,}"), ("wasted tokens", f"{record['wasted']:,}"),
            ("charge", "estimated" if record["estimated"] else "as the provider counted"),
        ]  # fmt: skip
        calls = [
            (call["upstream"], call["outcome"], f"{call['input']:,}", f"{call['output']:,}",
             amount(self._kind, call["units"].get(self._kind, 0)), f"{call['wasted']:,}")
            for call in record["calls"]
        ]  # fmt: skip
        numbers = ("in", "out", _named(self._kind), "wasted")
        body = page(
            "request", id=record["id"], facts=_list(facts),
            units=table(heads, rows, "Nothing was reserved or charged.", heads[1:]),
            calls=table(("upstream", "ended", *numbers), calls, "No upstream was called.", numbers),
        )  # fmt: skip
        return self._page(token, "Request", body, "/requests")

    # keys

    async def keys(self, request: Request, token: str) -> Response:
        """All keys."""
        return await self._key_list(token, {}, "")

    async def _key_list(self, token: str, form: dict[str, str], problem: str, status: int = 200) -> Response:
        found = (await self._api.get("keys"))["keys"]
        rows = [
            (
                link(key["name"] or key["id"], f"/keys/{key['id']}"), key["path"], ", ".join(key["limits"]) or "none",
                ", ".join(key["models"]), _state(key), when(key["created"]),
            )
            for key in reversed(found)
        ]  # fmt: skip
        values = {name: form.get(name, "") for name in ("name", "path", "models", "expires", *_LIMIT_FIELDS, *_CAPS)}
        opened = Html(" open" if problem or not found else "")
        heads = ("key", "path", "limits", "models", "state", "made (UTC)")
        body = page("keys", token=token, problem=_problem(problem), rows=table(heads, rows, "No keys yet."),
                    opened=opened, **values)  # fmt: skip
        return self._page(token, "Keys", body, "/keys", status)

    async def make_key(self, request: Request, token: str, form: dict[str, str]) -> Response:
        """A new key, whose secret is in this one answer."""
        about: dict[str, Any] = {"path": form.get("path", "").strip(), "name": form.get("name", "").strip()}
        for name in (*_LIMIT_FIELDS, "models"):
            if form.get(name, "").strip():
                about[name] = _words(form[name], _BETWEEN_LIMITS if name in _LIMIT_FIELDS else ",")
        try:
            for name in _CAPS:
                if form.get(name, "").strip():
                    about[name] = _whole(form[name])
            if form.get("expires", "").strip():
                about["expires"] = _moment(form["expires"])
            made = await self._api.post("keys", about)
        except Trouble as error:
            if error.status >= 500:
                raise
            return await self._key_list(token, form, str(error), error.status)
        body = page("made", secret=made["secret"], name=made["key"]["name"] or made["key"]["id"], id=made["key"]["id"])
        return self._page(token, "New key", body, "/keys", 201)

    async def key(self, request: Request, token: str) -> Response:
        """One key."""
        return await self._key_page(token, request.path_params["id"], "")

    async def _key_page(self, token: str, name: str, problem: str, status: int = 200) -> Response:
        now = wall_clock()
        _, seconds, step = RANGES["1h"]
        times = _times(now, seconds, step)
        about = {"key": name, "since": times[0]}
        found, spent, recent = await asyncio.gather(
            self._api.get(f"keys/{name}"),
            self._api.get("spend", by="time,stage", kind=self._kind, step=step, **about),
            self._api.get("requests", key=name, limit=10),
        )
        key, names = found["key"], {name: found["key"]["name"] or name}
        limited = [row for row in found["balances"] if row["limit"] is not None]
        kind = self._kind
        drawn = charts.bars(charts.stacks(spent["rows"], "stage", times), times, step * 1000,
                            lambda units: short(kind, units), f"{_named(kind)} by stage")  # fmt: skip
        facts = [
            ("id", key["id"]), ("path", key["path"]), ("state", _state(key)), ("made (UTC)", when(key["created"])),
            ("limits", ", ".join(key["limits"]) or "none"), ("each user", ", ".join(key["per_user"])),
            ("each session", ", ".join(key["per_session"])), ("each tag", ", ".join(key["per_tag"])),
            ("models", ", ".join(key["models"])),
            *((f"most {part} a request", f"{key[f'max_{part}']:,} tokens")
              for part in ("input", "output", "reasoning") if key[f"max_{part}"] is not None),
        ]  # fmt: skip
        actions = Html("")
        if not key["revoked"]:
            actions = page("key_actions", token=token, id=key["id"], example=(key["limits"] or ["$5"])[0])
        body = page(
            "key", title=names[name], problem=_problem(problem), facts=_list(facts), chart=drawn, kind=_named(kind),
            balances=self._balances(limited, names), recent=self._rows(recent["requests"], names, "No requests yet."),
            all=link("all its requests", "/requests", key=name), actions=actions,
        )  # fmt: skip
        return self._page(token, names[name], body, "/keys", status)

    async def top_up(self, request: Request, token: str, form: dict[str, str]) -> Response:
        """Raise a limit of a key."""
        return await self._change(
            token, request.path_params["id"], "top-up", {"amount": form.get("amount", "").strip()}
        )

    async def revoke(self, request: Request, token: str, form: dict[str, str]) -> Response:
        """End a key."""
        name = request.path_params["id"]
        if form.get("sure") != "yes":
            return await self._key_page(token, name, "Nothing was revoked: say that you are sure.", 400)
        return await self._change(token, name, "revoke", {})

    async def _change(self, token: str, name: str, what: str, body: dict[str, Any]) -> Response:
        try:
            await self._api.post(f"keys/{name}/{what}", body)
        except Trouble as error:
            if error.status != 400:
                raise
            return await self._key_page(token, name, str(error), 400)
        return RedirectResponse(f"/keys/{quote(name)}", 303)


def _times(now: int, seconds: int, step: int) -> list[int]:
    """Where the bars of the last ``seconds`` begin, milliseconds since 1970."""
    wide = step * 1000
    last = now // wide * wide
    return list(range(last - seconds * 1000 + wide, last + 1, wide))


def _facts(row: dict[str, Any], ahead: Sequence[tuple[int, float, float, float]], now: int, minute: float) -> Html:
    """What a forecast says."""
    kind, limit = row["kind"], row["limit"]

    def spent_at(which: int) -> str:
        found = next((at for at, *used in ahead if used[which] >= limit), None)
        return "not by then" if found is None else f"in {lasting(found - now)}"

    _, low, mean, high = ahead[-1]
    ending = f"used by {when(ahead[-1][0])} UTC" if row["window"] else f"used in {lasting(ahead[-1][0] - now)}"
    return _list([
        ("left now", amount(kind, row["left"])),
        ("pace", f"{amount(kind, minute)} a minute"),
        (ending, f"{amount(kind, mean)} of {amount(kind, limit)} (90 %: {amount(kind, low)} to {amount(kind, high)})"
                 + (" if nothing stopped it" if mean > limit else "")),
        ("runs out", f"{spent_at(1)} (earliest {spent_at(2)}, latest {spent_at(0)})"),
    ])  # fmt: skip


def _reasons(rows: Sequence[dict[str, Any]], about: dict[str, Any], names: Mapping[str, str]) -> Html:
    shown = [
        (link(row["reason"], "/requests", refused=1, path=row["scope"], since=about["since"]),
         _path(row["scope"], names), f"{row['requests']:,}")
        for row in sorted(rows, key=lambda row: -row["requests"])[:12]
    ]  # fmt: skip
    return table(("reason", "at", "requests"), shown, "Nothing was refused.", ("requests",))


def _wasted(rows: Sequence[dict[str, Any]], wasted: int, tokens: int) -> Html:
    says = {"cut": "streams that the upstream cut", "left": "clients that went away", "failed": "calls that failed",
            "ok": "attempts that were made again"}  # fmt: skip
    shown = [
        (link(says.get(row["outcome"], row["outcome"]), "/requests", outcome=row["outcome"]), f"{row['units']:,}",
         f"{row['units'] / max(1, tokens):.1%}")
        for row in rows if row["units"]
    ]  # fmt: skip
    return table(("by", "tokens", "of all"), shown, "No token was wasted.", ("tokens", "of all"))


def _upstreams(rows: Sequence[dict[str, Any]]) -> Html:
    well, ill = tag('<span class="good">well</span>'), '<span class="bad">rests after $n failures</span>'
    shown = [
        (row["name"], ", ".join(row["models"]), well if row["healthy"] else tag(ill, n=row["failures"]), row["live"])
        for row in rows
    ]
    return table(("upstream", "models", "health", "live"), shown, "None.", ("live",))


def _outcome(record: dict[str, Any]) -> Html:
    css = "good" if record["outcome"] in _GOOD else "bad" if record["outcome"] in ("failed", "cut") else "warn"
    return tag('<span class="$css">$x</span> $status', css=css, x=record["outcome"] if record["status"] else "live",
               status=record["status"] or "")  # fmt: skip


def _list(facts: Sequence[tuple[str, object]]) -> Html:
    """Names and values; what is empty is left out."""
    shown = join(tag("<dt>$name</dt><dd>$value</dd>", name=name, value=value) for name, value in facts if value)
    return tag("<dl>$shown</dl>", shown=shown)


def _problem(text: str) -> Html:
    return tag('<p class="problem" role="alert">$text</p>', text=text) if text else Html("")


def _named(kind: str) -> str:
    return {"all": "tokens", "money": "dollars"}.get(kind, kind)


def _window(window: str) -> str:
    return window or "in all"


def _state(key: dict[str, Any]) -> Html:
    if key["revoked"]:
        return tag('<span class="bad">$x</span>', x="revoked")
    if key["expires"] is None:
        return tag('<span class="good">$x</span>', x="valid")
    gone = key["expires"] <= wall_clock()
    return tag('<span class="$css">$x</span>', css="bad" if gone else "good",
               x=f"{'expired' if gone else 'valid until'} {when(key['expires'])}")  # fmt: skip


def _path(path: str, names: Mapping[str, str]) -> str:
    """An account's path with the names of keys for their ids."""
    return "/".join(names.get(part, part) for part in path.split("/"))


_BETWEEN_LIMITS = "(?<![0-9]),|,(?![0-9])"
"""A comma between digits belongs to the limit, which says whether it may be there."""


def _words(text: str, between: str) -> list[str]:
    return [word.strip() for word in re.split(rf"\n|{between}", text) if word.strip()]


def _whole(text: str) -> int:
    clean = text.strip()
    if not re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3}){1,5}|[0-9][0-9_]{0,17}", clean):
        raise Trouble(400, f"{text!r} is no whole number; write 1500 or 1,500.")
    return int(clean.replace(",", "").replace("_", ""))


def _moment(text: str) -> int:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Trouble(400, f"{text!r} is no date; write 2027-01-31.") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
