"""One POST to a receiver: the name is resolved once, and the connection goes to the very address that was judged.

No redirects are followed, no proxies are asked, the environment is not read; the whole takes `SECONDS` at most and the
answer is read up to `MOST_BYTES`.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from app.errors import SpearError
from app.jobs.webhooks import Outcome
from app.recipes.webhook import Destination
from app.webhooks.policy import Policy

SECONDS = 15.0
MOST_BYTES = 2_048

Resolve = Callable[[str, int], Sequence[str]]
Dial = Callable[[tuple[str, int], float], socket.socket]


def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def post(
    url: str, *, body: bytes, headers: Mapping[str, str], policy: Policy, resolve: Resolve = resolve,
    dial: Dial = socket.create_connection, tls: ssl.SSLContext | None = None, seconds: float = SECONDS,
) -> Outcome:
    """Send, and tell how it went; never raises for what the receiver, its name or the network does."""
    started = time.monotonic()
    try:
        found = policy.admit(url)
        addresses = _resolved(found, resolve=resolve, seconds=seconds)
        address = policy.choose(found, addresses)
        link = _Link(found, address=address, dial=dial, tls=tls, deadline=started + seconds)
        code = link.send(body, headers)
    except SpearError as error:
        return Outcome(milliseconds=_since(started), error=f"refused: {error.message}")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Outcome(milliseconds=_since(started), error=_reason(error))
    return Outcome(milliseconds=_since(started), status_code=code)


class _Link:
    """One connection to one address, closed at the deadline whatever the other side does."""

    def __init__(
        self, to: Destination, *, address: str, dial: Dial, tls: ssl.SSLContext | None, deadline: float
    ) -> None:
        self._to = to
        self._address = address
        self._dial = dial
        self._tls = tls or ssl.create_default_context()
        self._deadline = deadline

    def send(self, body: bytes, headers: Mapping[str, str]) -> int:
        plain = self._dial((self._address, self._to.port), self._left())
        handle = plain.dup()  # TLS takes the socket itself away from `plain`, from its handshake on
        clock = threading.Timer(self._left(), _cut, [handle])
        clock.daemon = True
        clock.start()
        try:
            plain.settimeout(self._left())
            return self._exchange(plain, body, headers)
        finally:
            clock.cancel()
            handle.close()
            plain.close()

    def _exchange(self, plain: socket.socket, body: bytes, headers: Mapping[str, str]) -> int:
        connection = http.client.HTTPConnection(self._to.host, self._to.port)
        connection.auto_open = False
        secure = self._to.scheme == "https"
        connection.sock = self._tls.wrap_socket(plain, server_hostname=self._to.host) if secure else plain
        try:
            host = self._to.origin.split("://")[1]
            connection.request("POST", self._to.path, body=body, headers={**headers, "Host": host})
            answer = connection.getresponse()
            answer.read(MOST_BYTES)
            return answer.status
        finally:
            connection.close()

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _resolved(to: Destination, *, resolve: Resolve, seconds: float) -> Sequence[str]:
    """The name server's answer, not waited for any longer than the whole may take."""
    found: list[Sequence[str] | OSError] = []

    def ask() -> None:
        try:
            found.append(resolve(to.host, to.port))
        except (OSError, UnicodeError) as error:
            found.append(OSError(f"the name cannot be resolved: {type(error).__name__}"))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    answer = found[0] if found else TimeoutError()
    if isinstance(answer, OSError):
        raise answer
    return answer


def _cut(plain: socket.socket) -> None:
    """Ends what is under way on the connection, also below TLS."""
    with contextlib.suppress(OSError):  # it is closed already
        plain.shutdown(socket.SHUT_RDWR)


def _since(started: float) -> int:
    return round(1000 * (time.monotonic() - started))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or type(error).__name__}"
    return f"{type(error).__name__}: {error}"[:200]
