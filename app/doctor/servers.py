"""Database, broker, Hub and API: whether they answer, as whom, and whether their clocks agree with ours."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx2

from app.doctor.finding import Finding, fail, ok, skip, warn
from app.errors import Code, SpearError
from app.hub.client import connected
from app.jobs.condition import look as look_at_database
from app.queue.condition import look as look_at_broker
from app.settings import Settings

CLOCK_SECONDS = 5.0
"""a difference of clocks that confuses people who read logs; leases go by the database's clock alone"""
SECONDS = 5.0
NOWHERE = "spear-doctor/no-such-repository"


def check_database(settings: Settings) -> Iterator[Finding]:
    """Reachable, at the newest schema, its clock near ours."""
    area = "database"
    if not settings.database_url:
        yield skip(area, "connection", "SPEAR_DATABASE_URL is not set; `spear up` brings its own")
        return
    seen = look_at_database(settings.database_url)
    if seen.error:
        yield fail(area, "connection", seen.error, cure="start Postgres, or correct SPEAR_DATABASE_URL")
        return
    yield ok(area, "connection", f"PostgreSQL {seen.version}, {1000 * seen.seconds:.0f} ms")
    if seen.revision == seen.head:
        yield ok(area, "schema", f"revision {seen.revision}, the newest")
    else:
        yield fail(
            area, "schema", f"revision {seen.revision or 'none'}, not {seen.head}",
            cure="spear migrate (or install the version of spear-merge that knows this revision)",
        )  # fmt: skip
    yield _clock(area, seen.clock_seconds)


def check_broker(settings: Settings) -> Iterator[Finding]:
    """Reachable."""
    area = "broker"
    if not settings.redis_url:
        yield skip(area, "connection", "SPEAR_REDIS_URL is not set; `spear up` brings its own")
        return
    seen = look_at_broker(settings.redis_url)
    if seen.error:
        yield fail(area, "connection", seen.error, cure="start Redis or Valkey, or correct SPEAR_REDIS_URL")
    else:
        yield ok(area, "connection", f"{seen.server}, {1000 * seen.seconds:.0f} ms, {seen.waiting} messages wait")


def check_hub(settings: Settings) -> Iterator[Finding]:
    """Reachable; the token's user and what it may write."""
    area, began = "hub", time.monotonic()
    quick = settings.model_copy(update={"hub_timeout_seconds": SECONDS})
    try:
        with connected(quick) as hubs:
            try:
                hubs.anonymous.check_access(NOWHERE)
            except SpearError as error:
                if error.code in (Code.HUB_UNAVAILABLE, Code.HUB_REFUSED):
                    raise
            yield ok(area, "endpoint", f"{settings.hub_endpoint} answers, {time.monotonic() - began:.1f} s")
            if hubs.publisher.anonymous:
                yield warn(
                    area, "token", "none: public repositories can be read, and nothing published",
                    cure="put a token into a file and name it in SPEAR_HUB_TOKEN_FILE",
                )  # fmt: skip
                return
            yield _token(area, hubs.publisher.whoami(), hubs.publisher.writable_namespaces())
    except SpearError as error:
        name = "endpoint" if error.code is Code.HUB_UNAVAILABLE else "token"
        # the repository is made up by this check, and nobody else's concern
        words = error.message.replace(f"{NOWHERE}; ", "").replace("the Hub", f"the Hub at {settings.hub_endpoint}")
        yield fail(area, name, words, cure=_cure(error))
    except OSError as error:
        yield fail(area, "token", f"its file cannot be read: {error.strerror}", cure="correct SPEAR_HUB_TOKEN_FILE")


def check_api(settings: Settings) -> Iterator[Finding]:
    """Whether the service answers at SPEAR_API_URL, is ready, and takes the key."""
    area, key = "service", settings.api_key
    if key is None:
        yield skip(area, "address", "SPEAR_API_KEY is not set: this machine is no client")
        return
    try:
        with httpx2.Client(base_url=settings.api_url, timeout=SECONDS, trust_env=False) as http:
            ready = http.get("/readyz")
            bearer = {"Authorization": f"Bearer {key.get_secret_value()}"}
            asked = http.get("/merges", params={"limit": 1}, headers=bearer)
    except httpx2.HTTPError as error:
        yield fail(
            area, "address", f"{settings.api_url} does not answer: {error}",
            cure="start it (`spear up`, or docker compose up), or correct SPEAR_API_URL",
        )  # fmt: skip
        return
    if ready.is_success:
        yield ok(area, "address", f"{settings.api_url} is ready")
    else:
        words = f"{settings.api_url} is not ready: {ready.text[:200]}"
        yield fail(area, "address", words, cure="run `spear doctor` where it runs")
    if asked.is_success:
        yield ok(area, "key", "is valid")
    else:
        yield fail(area, "key", f"is not taken (HTTP {asked.status_code})", cure="make one: spear keys create")


def _token(area: str, user: str, namespaces: frozenset[str]) -> Finding:
    if not namespaces:
        return warn(
            area, "token", f"of {user}, which may only read: nothing can be published",
            cure="take a token with the right to write",
        )  # fmt: skip
    return ok(area, "token", f"of {user}; may write to {', '.join(sorted(namespaces))}")


def _clock(area: str, difference: float) -> Finding:
    """`difference`: the server's clock minus ours, in seconds."""
    if abs(difference) <= CLOCK_SECONDS:
        return ok(area, "clock", f"{difference:+.1f} s against this machine's ({datetime.now(UTC):%H:%M:%S} UTC)")
    return warn(
        area, "clock", f"{difference:+.0f} s against this machine's: logs of the two will not line up",
        cure="let both follow NTP (timedatectl set-ntp true)",
    )


def _cure(error: SpearError) -> str:
    if error.code is Code.HUB_UNAVAILABLE:
        return "look at the network, or correct SPEAR_HUB_ENDPOINT"
    return "take a valid token, and name its file in SPEAR_HUB_TOKEN_FILE"
