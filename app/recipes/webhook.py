"""Whom to tell when a job has ended. Only the spelling of the URL is judged here; what it may reach, elsewhere."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?)"
)
"""One spelling of each part and no other: no user, no fragment, no backslash, nothing but visible ASCII. Readers of
URLs differ about all of those, and what two readers read differently gets past one of them."""
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

Outcome = Literal["job.succeeded", "job.failed", "job.cancelled"]
OUTCOMES: tuple[Outcome, ...] = ("job.succeeded", "job.failed", "job.cancelled")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A URL in its parts: `host` is a name in lower case or an address without brackets, `path` begins with '/'."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == PORTS[self.scheme] else f":{self.port}")


def parse_url(url: str) -> Destination:
    """The parts of a URL in the one spelling that is accepted; raises `ValueError` for every other."""
    found = _URL.fullmatch(url)
    if not found:
        raise ValueError("must be http(s)://host[:port][/path][?query] in plain ASCII, without user and fragment")
    port = int(found["port"] or PORTS[found["scheme"]])
    if port > 65_535:
        raise ValueError("must have a port up to 65535")
    path = found["path"]
    return Destination(
        scheme=found["scheme"], host=_host(found["host"].lower()), port=port,
        path=path if path.startswith("/") else f"/{path}",
    )


def _host(host: str) -> str:
    if host.startswith("["):
        return str(ipaddress.IPv6Address(host[1:-1]))
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):  # for resolvers this is an address, in one of many spellings
        return str(ipaddress.IPv4Address(host))
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("must have a host of letters, digits and '-' between dots")
    return host


def _spelt(url: str) -> str:
    parse_url(url)
    return url


class Webhook(BaseModel):
    """Where to send a word when the job has ended, and of which ends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, StringConstraints(max_length=2000), AfterValidator(_spelt)] = Field(
        json_schema_extra={"format": "uri"}
    )
    events: tuple[Outcome, ...] = Field(OUTCOMES, min_length=1, max_length=3)


def _whole(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


AnyWebhook = Annotated[Webhook, BeforeValidator(_whole, json_schema_input_type=Webhook | str)]
"""A plain URL is short for all events to that URL."""
