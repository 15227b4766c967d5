"""Where webhooks may go. By default nowhere: the operator names hosts, or opens the public internet with `*`."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from app.errors import Code, SpearError
from app.recipes.webhook import Destination, parse_url

Address = IPv4Address | IPv6Address
ANY = "*"
TLS_PORTS = frozenset({443, 8443})

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_SPECIAL = tuple(
    ipaddress.ip_network(net)
    for net in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
        "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
    )
)  # fmt: skip
"""IANA's special-purpose registries (and all of 224/3). Spelt out, because the standard library's `is_global` calls
multicast, 6to4 and NAT64 global, and changes from one Python to the next."""


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, also where it is wrapped in another."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        if int(address) >> 32 and (inner := _wrapped(address)):
            return is_public(inner)
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not any(address in net for net in _SPECIAL if net.version == address.version)


@dataclass(frozen=True)
class Policy:
    """The operator's list: `*`, host names (https on its ports), or whole origins (`http://hooks.internal:8080`)."""

    hosts: frozenset[str]
    ports: frozenset[int] = TLS_PORTS

    @classmethod
    def of(cls, text: str) -> "Policy":
        """From the setting: names and origins between commas. Raises `ValueError` for what is neither."""
        entries = [entry.strip().lower() for entry in text.split(",") if entry.strip()]
        return cls(frozenset(_entry(entry) for entry in entries))

    def admit(self, url: str) -> Destination:
        """The URL's parts; raises `SpearError(webhook_refused)` for what can be known to be refused without asking a
        name server."""
        try:
            found = parse_url(url)
        except ValueError as error:
            raise _refused(f"the webhook's URL {error}") from None
        if not self._listed(found):
            if ANY not in self.hosts:
                raise _refused(f"the webhook's host {found.host} is not on the operator's list", host=found.host)
            self._admit_public(found)
        return found

    def _listed(self, found: Destination) -> bool:
        return found.origin in self.hosts or (
            found.scheme == "https" and found.port in self.ports and found.host in self.hosts
        )

    def _admit_public(self, found: Destination) -> None:
        if found.scheme != "https":
            raise _refused("a webhook goes over https", host=found.host)
        if found.port not in self.ports:
            raise _refused(f"a webhook goes to port {' or '.join(map(str, sorted(self.ports)))}", host=found.host)
        if (address := _literal(found.host)) and not is_public(address):
            raise _refused(f"{found.host} is not an address of the public internet", host=found.host)
        if "." not in found.host and ":" not in found.host:
            raise _refused(f"the webhook's host {found.host} is not a name of the public internet", host=found.host)

    def choose(self, found: Destination, addresses: Sequence[str]) -> str:
        """The address to connect to, of all that the host's name has; raises `SpearError(webhook_refused)` if any of
        them is one that it may not have. A host that the operator listed may have private ones."""
        known = [ipaddress.ip_address(one) for one in addresses]
        listed = self._listed(found)
        for address in known:
            if not (is_public(address) or (listed and _inside(address))):
                raise _refused(f"{found.host} has the address {address}, which is not public", host=found.host)
        if not known:
            raise _refused(f"{found.host} has no address", host=found.host)
        return str(known[0])


def _inside(address: Address) -> bool:
    """An address that a listed host may have besides public ones: never one that all machines share."""
    one = (_wrapped(address) or address.sixtofour) if isinstance(address, IPv6Address) else None
    return not any(what.is_link_local or what.is_multicast or what.is_unspecified for what in (address, one or address))


def _wrapped(address: IPv6Address) -> IPv4Address | None:
    """The address that it stands for where a translator (NAT64), or the kernel itself, sees one of IPv4 in it."""
    compatible = int(address) >> 32 == 0 and int(address) > 1  # ::a.b.c.d, long deprecated; not :: and ::1
    inside = compatible or address in _NAT64
    return address.ipv4_mapped or (IPv4Address(int(address) & 0xFFFFFFFF) if inside else None)


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _entry(entry: str) -> str:
    if entry == ANY:
        return entry
    if "://" in entry:
        found = parse_url(entry)
        if found.path != "/":
            raise ValueError(f"{entry} is not an origin: it has a path")
        return found.origin
    if "/" in entry or (":" in entry and not entry.startswith("[")):
        raise ValueError(f"{entry} is neither a host nor an origin")
    return parse_url(f"https://{entry}").host


def _refused(message: str, **names: str) -> SpearError:
    return SpearError(Code.WEBHOOK_REFUSED, message, pointer="/webhook/url", **names)
