"""`python -m benchmarks.load.pollers`: many connections, each asking again as soon as it is answered.

A process of its own, on the bare protocol of asyncio, so that it takes little of what is measured. Reads one JSON
object from stdin ({"host", "port", "seconds", "requests": [...]}, one request as text for each connection) and writes
one to stdout.
"""

import asyncio
import json
import math
import sys
import time
from collections import Counter
from typing import Any

WARM_SECONDS = 1.0


class Poller(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, *, since: float, until: float, tally: "Tally") -> None:
        self._request, self._since, self._until, self._tally = request, since, until, tally
        self._buffer = b""
        self._sent = 0.0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio names it)
        if not self.over.done():
            self._tally.statuses[0] += 1
            self.over.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        now = time.monotonic()
        if self._since <= self._sent and now <= self._until:
            self._tally.seconds.append(now - self._sent)
            self._tally.statuses[int(head[9:12])] += 1
        self._buffer = b""
        if now < self._until:
            self._ask()
        else:
            self.over.set_result(None)
            self._transport.close()

    def _ask(self) -> None:
        self._sent = time.monotonic()
        self._transport.write(self._request)


class Tally:
    """What the connections saw."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()

    def told(self, *, seconds: float) -> dict[str, Any]:
        ordered = sorted(self.seconds)
        shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
        at = {name: ordered[max(0, math.ceil(share * len(ordered)) - 1)] for name, share in shares.items()}
        per_second = round(len(ordered) / seconds, 1)
        return {"per_second": per_second, "statuses": dict(self.statuses)} | {
            f"{name}_ms": round(1000 * value, 2) for name, value in at.items()
        }


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def poll(host: str, port: int, requests: list[str], *, seconds: float) -> dict[str, Any]:
    tally, loop, began = Tally(), asyncio.get_running_loop(), time.monotonic()
    pollers = []
    for request in requests:
        since, until = began + WARM_SECONDS, began + WARM_SECONDS + seconds
        _, poller = await loop.create_connection(
            lambda request=request, since=since, until=until: Poller(
                request.encode(), since=since, until=until, tally=tally
            ),
            host, port,
        )  # fmt: skip
        pollers.append(poller)
    await asyncio.gather(*(poller.over for poller in pollers))
    return tally.told(seconds=seconds)


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print(json.dumps(asyncio.run(poll(asked["host"], asked["port"], asked["requests"], seconds=asked["seconds"]))))
