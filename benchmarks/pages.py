"""`python -m benchmarks.pages`: how long the server takes for each page, and how large the pages are.

Among 10 000 jobs (`--jobs`) stands one of a model of 8 billion parameters with everything that a job can leave behind.
One reader asks for page after page over HTTP from the API as `spear api` serves it; a time is from the request to the
last byte, by the reader's clock. The exit status is 0 only if every page's p95 is within 100 ms and the job page with
all that it loads within 60 kB.
"""

import argparse
import gzip
import http.client
import re
import sys
import tempfile
import time
from pathlib import Path

from app.jobs import migrate
from app.jobs.database import Database
from app.jobs.keys import Caller, Keys
from app.settings import Settings
from benchmarks.load import rows, servers
from tests.fixtures.reports import add_job, make_report, make_sheets, make_spectra

MOST_MS, MOST_BYTES = 100.0, 60_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=100, help="requests for each page")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spear-pages-") as folder:
        home = Path(folder)
        with servers.databases(home) as (database_url, redis_url):
            sys.exit(0 if _measure(home, database_url, redis_url, given) else 1)


def _measure(home: Path, database_url: str, redis_url: str, given: argparse.Namespace) -> bool:
    migrate.upgrade(database_url)
    (home / "secret").write_text("pages")
    settings = Settings(database_url=database_url, redis_url=redis_url, secret_file=home / "secret")
    database = Database(database_url)
    keys = Keys(database, secret=settings.secret)
    made = {
        name: keys.create(name=name, scopes=scopes, reads=["org"], writes=["org"], unlimited=True)
        for name, scopes in (("team", ("merges:read", "merges:write")), ("root", ("admin",)))
    }
    caller = keys.find(made["team"])
    assert caller is not None
    names = _fill(database, caller, count=given.jobs)
    env = {"SPEAR_DATABASE_URL": database_url, "SPEAR_REDIS_URL": redis_url, "SPEAR_DATA_DIR": str(home / "data"),
           "SPEAR_SECRET_FILE": str(home / "secret")}  # fmt: skip
    with servers.api(home, **env) as port:
        held = [_page(port, name, path, key=made[who], rounds=given.rounds) for name, path, who in _paths(*names)]
        size = _weight(port, f"/jobs/{names[0]}", key=made["team"])
    database.close()
    print(f"\nthe job page and all that it loads: {size / 1000:.1f} kB compressed (at most {MOST_BYTES / 1000:.0f})")
    return all(held) and size <= MOST_BYTES


def _fill(database: Database, caller: Caller, *, count: int) -> tuple[str, str]:
    rows.add_finished(database, caller, count=count)
    report, other = make_report(seed=1), make_report(seed=2, share=0.5)
    documents = {"spectra": make_spectra(report), "sheets": make_sheets()}
    whole = add_job(database, caller, report=report, documents=documents)
    second = add_job(database, caller, report=other, target="org/stronger")
    rows.analyze(database)
    return whole, second


def _paths(whole: str, second: str) -> list[tuple[str, str, str]]:
    """Name, address, whose key."""
    return [
        ("list", "/", "team"), ("list, an administrator's", "/", "root"),
        ("list by status, target and label", "/?status=succeeded&target=org/restored&label=team:none", "team"),
        ("list, polled", "/jobs", "team"), ("job", f"/jobs/{whole}", "team"),
        ("job, polled", f"/jobs/{whole}/live", "team"), ("heatmap", f"/jobs/{whole}/heatmap?metric=snr", "team"),
        ("tensor panel", f"/jobs/{whole}/cell?module=up&layer=7", "team"),
        ("table, sorted", f"/jobs/{whole}/tensors?only=all&sort=svdr", "team"),
        ("answers of a task", f"/jobs/{whole}/answers?task=arc_easy", "team"),
        ("CSV", f"/jobs/{whole}/scores.csv", "team"), ("compare", f"/compare?a={whole}&b={second}", "team"),
    ]  # fmt: skip


def _page(port: int, name: str, path: str, *, key: str, rounds: int) -> bool:
    times, size = [], 0
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for number in range(rounds + 5):
        began = time.perf_counter()
        size = len(_get(connection, path, key=key))
        if number >= 5:  # the first fill pools and caches
            times.append(1000 * (time.perf_counter() - began))
    times.sort()
    p50, p95 = times[len(times) // 2], times[int(0.95 * len(times))]
    print(f"{name:34} p50 {p50:6.1f} ms   p95 {p95:6.1f} ms   {size / 1000:6.1f} kB")
    return p95 <= MOST_MS


def _weight(port: int, path: str, *, key: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    packed = _get(connection, path, key=key)
    names = set(re.findall(rb'(?:src|href)="(/static/[^"]+)"', gzip.decompress(packed)))
    return len(packed) + sum(len(_get(connection, name.decode(), key=key)) for name in names)


def _get(connection: http.client.HTTPConnection, path: str, *, key: str) -> bytes:
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}", "Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status in {200, 204}, (path, answer.status, body[:200])
    return body


if __name__ == "__main__":
    main()
