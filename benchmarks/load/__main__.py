"""`make load`: the API under many pollers beside a bare FastAPI route, and its queries among 100 000 jobs.

Everything runs on this machine at the same time: the server under load, Postgres, and the pollers in a process of their
own. The bare route is measured before and after ours, and the better figure counts for it. The exit status is 0 only
if reading a job reaches a fifth of the bare route's throughput and the list's p95 stays within five times its p50.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.jobs import migrate
from app.jobs.database import Database
from app.jobs.keys import Caller, Keys
from app.jobs.leases import Leases
from app.jobs.rescue import Rescue
from app.jobs.store import Store
from app.settings import Settings
from benchmarks.load import rows, servers
from benchmarks.load.submissions import submissions

SHARE, SPREAD = 1 / 5, 5


def main() -> None:
    given = _arguments()
    with tempfile.TemporaryDirectory(prefix="spear-load-") as folder:
        home = Path(folder)
        with servers.databases(home) as (database_url, redis_url):
            found = _measure(home, database_url, redis_url, given)
    share = found["get, 304"]["per_second"] / found["bare"]["per_second"]
    share_200 = found["get, 200"]["per_second"] / found["bare"]["per_second"]
    spread = found["list"]["p95_ms"] / found["list"]["p50_ms"]
    held = min(share, share_200) >= SHARE and spread <= SPREAD
    print(f"of the bare route: {share:.2f} (304), {share_200:.2f} (200); the list's p95 is {spread:.1f} times its p50")
    print(f"verdict: {'held' if held else 'below the marks'}")
    sys.exit(0 if held else 1)


def _measure(home: Path, database_url: str, redis_url: str, given: argparse.Namespace) -> dict[str, Any]:
    migrate.upgrade(database_url)
    (home / "secret").write_text("load")
    settings = Settings(database_url=database_url, redis_url=redis_url, secret_file=home / "secret")
    database = Database(database_url)
    keys = Keys(database, secret=settings.secret)
    key = keys.create(
        name="load", scopes=("merges:read", "merges:write"), reads=["org"], writes=["org"], unlimited=True
    )
    caller = keys.find(key)
    assert caller is not None
    ids = rows.add_finished(database, caller, count=given.jobs)
    rows.analyze(database)
    names = {"SPEAR_DATABASE_URL": database_url, "SPEAR_REDIS_URL": redis_url, "SPEAR_DATA_DIR": str(home / "data"),
             "SPEAR_SECRET_FILE": str(home / "secret")}  # fmt: skip
    found: dict[str, Any] = {}
    with servers.bare(home) as port:
        before = servers.load(port, [_get("/bare/x")] * given.pollers, seconds=given.seconds)
    with servers.api(home, **names) as port:
        found |= _reads(port, ids, key=key, given=given)
    with servers.bare(home) as port:
        after = servers.load(port, [_get("/bare/x")] * given.pollers, seconds=given.seconds)
    found = {"bare": max(before, after, key=lambda one: float(str(one["per_second"])))} | found
    _tell(found)
    if not given.reads_only:
        _tell(_queries(database, caller, ids, given))
        _tell(submissions(home, names, keys=keys, seconds=given.seconds))
    database.close()
    return found


def _tell(found: dict[str, Any]) -> None:
    for name, figures in found.items():
        print(f"{name:42} {json.dumps(figures)}", flush=True)


def _reads(port: int, ids: list[str], *, key: str, given: argparse.Namespace) -> dict[str, Any]:
    polled = [ids[number * len(ids) // given.pollers] for number in range(given.pollers)]
    tagged = [_get(f"/merges/{name}", key=key, tag='W/"1"') for name in polled]
    plain = [_get(f"/merges/{name}", key=key) for name in polled]
    lists = [_get("/merges?limit=20", key=key)] * min(20, given.pollers)
    return {
        "get, 304": servers.load(port, tagged, seconds=given.seconds),
        "get, 200": servers.load(port, plain, seconds=given.seconds),
        "list": servers.load(port, lists, seconds=given.seconds),
    }


def _queries(database: Database, caller: Caller, ids: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """The queries of the list, the claim and the sweep, among many jobs and a deep queue."""
    rows.add_finished(database, caller, count=given.many - given.jobs, details=False)
    rows.add_queued(database, caller, count=1_000)
    rows.analyze(database)
    store = Store(database, max_attempts=3, idempotency_hours=24)
    leases = Leases(database, seconds=60)
    rescue = Rescue(database, resend_seconds=30, idempotency_hours=24)
    timed: dict[str, Callable[[], Any]] = {
        "list": lambda: store.find(caller, limit=21),
        "list, an old page": lambda: store.find(caller, limit=21, before=ids[len(ids) // 2]),
        "list, by status": lambda: store.find(caller, limit=21, status=["failed"]),  # type: ignore[list-item]
        "list, by target": lambda: store.find(caller, limit=21, target="org/restored77"),
        "list, by label": lambda: store.find(caller, limit=21, labels={"team": "law"}),
        "claim": lambda: leases.claim_next(owner="load:1"),
        "sweep": rescue.sweep,
    }
    return {f"{name}, {given.many} jobs": _timed(call) for name, call in timed.items()}


def _timed(call: Callable[[], Any], *, times: int = 100) -> dict[str, float]:
    spent = []
    for _ in range(times):
        began = time.monotonic()
        call()
        spent.append(1000 * (time.monotonic() - began))
    spent.sort()
    return {"p50_ms": round(spent[times // 2], 2), "p95_ms": round(spent[int(0.95 * times) - 1], 2)}


def _get(path: str, *, key: str = "", tag: str = "") -> str:
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    lines += [f"If-None-Match: {tag}"] if tag else []
    return "\r\n".join([*lines, "", ""])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=100_000, help="jobs for the queries")
    parser.add_argument("--pollers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=8, help="for each measurement")
    parser.add_argument("--reads-only", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
