"""Templates to answers: compressed, uncached, and under a content security policy that lets nothing foreign in."""

import gzip
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from app.dashboard.assets import asset_url
from app.dashboard.charts.gantt import duration
from app.dashboard.charts.scales import figure, percent

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store", "Vary": "Cookie, HX-Request",
}  # fmt: skip
_LEAST = 500
"""bytes below which packing saves nothing"""


def page(request: Request, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None,
         **values: Any) -> Response:  # fmt: skip
    """A whole page or, by the template's name with an underscore, a part of one."""
    values |= {"caller": getattr(request.state, "caller", None), "sign_out": getattr(request.state, "sign_out", None)}
    text = _templates().get_template(template).render(path=request.url.path, **values)
    return packed(request, text.encode(), "text/html; charset=utf-8", status=status, headers=headers)


def part(request: Request, template: str, *, title: str, **values: Any) -> Response:
    """For htmx a part of a page; for whoever comes by the address alone, the part on a page of its own."""
    if request.headers.get("hx-request") == "true":
        return page(request, template, **values)
    return page(request, "part.html", part=template, title=title, **values)


def packed(request: Request, body: bytes, media_type: str, *, status: int = 200,
           headers: Mapping[str, str] | None = None) -> Response:  # fmt: skip
    """The body, by gzip where the reader takes it.

    Packed pages tell by their size what is in them; nobody can have a reader fetch them with bait in the address,
    because the session's cookie does not come along from other sites.
    """
    found = HEADERS | dict(headers or {})
    if len(body) >= _LEAST and "gzip" in request.headers.get("accept-encoding", ""):
        body, found = gzip.compress(body, 5, mtime=0), found | {"Content-Encoding": "gzip"}
    return Response(body, status, found, media_type=media_type)


def chart(svg: str) -> Markup:
    """A chart's text as it is: charts escape what comes from outside."""
    return Markup(svg)  # noqa: S704  (made by app.dashboard.charts alone)


def moment(at: datetime | None) -> str:
    """A moment as people read it, to the second, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else "-"


def size(count: float | None) -> str:
    """A number of bytes, short."""
    if count is None:
        return "-"
    value, units = float(count), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 999.5 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.3g} {unit}"


def many(count: float | None) -> str:
    """A large number of things, short: `56.6 M`."""
    if count is None:
        return "-"
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if count >= limit:
            return f"{count / (1e3 if unit == ' k' else limit):.3g}{unit}"
    return f"{count:g}"


_ENVIRONMENT: list[Environment] = []


def _templates() -> Environment:
    if not _ENVIRONMENT:
        made = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True, auto_reload=False,
        )
        made.globals["asset"] = asset_url
        made.filters |= {
            "chart": chart, "duration": duration, "figure": figure, "percent": percent, "moment": moment,
            "size": size, "many": many,
        }  # fmt: skip
        _ENVIRONMENT.append(made)
    return _ENVIRONMENT[0]
