"""How many merges can be submitted: each is checked against a Hub, here the local one, before it is queued."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from app.client import Client
from app.jobs.keys import Keys
from benchmarks.load import servers
from tests.fixtures.checkpoints import checkpoint, push
from tests.fixtures.hub import LocalHub

SIDE_BY_SIDE = 8


def submissions(home: Path, names: dict[str, str], *, keys: Keys, seconds: float) -> dict[str, Any]:
    """Merges per second from so many callers at once, and what one waits."""
    hub = LocalHub(home / "hub")
    hub.start()
    try:
        user, token = hub.fresh_user("load")
        (home / "token").write_text(token)
        for name, seed in (("base", 1), ("adapted", 2)):
            push(hub.api(token), f"{user}/{name}", checkpoint(shards=2, seed=seed))
        key = keys.create(
            name="submits", scopes=("merges:read", "merges:write"), reads=[user], writes=[user], unlimited=True
        )
        settings = names | {"SPEAR_HUB_ENDPOINT": hub.endpoint, "SPEAR_HUB_TOKEN_FILE": str(home / "token")}
        with servers.api(home, **settings) as port, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            began = time.monotonic()
            url = f"http://127.0.0.1:{port}"
            places = [(url, key, user, number, began + seconds) for number in range(SIDE_BY_SIDE)]
            spent = sorted(one for found in pool.map(_submit, places) for one in found)
            took = time.monotonic() - began
    finally:
        hub.stop()
    return {
        f"submit, {SIDE_BY_SIDE} callers": {
            "per_second": round(len(spent) / took, 1), "p50_ms": round(1000 * statistics.median(spent), 1),
            "p95_ms": round(1000 * spent[int(0.95 * len(spent))], 1),
        }
    }


def _submit(place: tuple[str, str, str, int, float]) -> list[float]:
    url, key, user, number, until = place
    spent: list[float] = []
    with Client(url, key) as client:
        while time.monotonic() < until:
            began = time.monotonic()
            client.submit({
                "base": {"repo": f"{user}/base"}, "experts": [{"repo": f"{user}/adapted"}],
                "method": {"name": "linear"}, "target": {"repo": f"{user}/t{number}-{len(spent)}"},
            })  # fmt: skip
            spent.append(time.monotonic() - began)
    return spent
