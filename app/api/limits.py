"""How often a key may ask: counted in Redis where there is one, so that all API processes share it, else in memory.

The headers follow draft-ietf-httpapi-ratelimit-headers-10 (`RateLimit-Policy: "requests";q=1200;w=60` and
`RateLimit: "requests";r=1187;t=1`). Where Redis is away, everybody is let in and the log says so.
"""

import math
import time
from dataclasses import dataclass

import structlog
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis import Redis, RedisError

from app.errors import Code, SpearError
from app.jobs.callers import Caller
from app.settings import Settings

log = structlog.get_logger()

WINDOW_SECONDS = 60
_AWAY_SECONDS = 5
_TIMEOUT_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Window:
    """What is left of one policy: `remaining` requests now, one more after `reset` seconds."""

    policy: str
    quota: int
    remaining: int
    reset: int
    exceeded: bool


class Limits:
    """The counters. They may be called from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis = _connect(settings.redis_url)
        self._counter = SlidingWindowCounterRateLimiter(_storage(settings.redis_url, self._redis))
        self._away_until = 0.0

    def spend(self, caller: Caller, *, changing: bool) -> list[Window]:
        """Count one request; how each policy that it falls under stands, nothing for an unlimited key."""
        if caller.unlimited:
            return []
        policies = [("requests", caller.requests_per_minute or self._settings.requests_per_minute)]
        if changing:
            policies.append(("changes", self._settings.changes_per_minute))
        found = [self._hit(policy, caller.key_id, quota=quota) for policy, quota in policies]
        return [window for window in found if window]

    def spend_stranger(self, address: str) -> list[Window]:
        """Count a request without a valid key, by the address that it came from."""
        window = self._hit("refusals", address, quota=self._settings.refusals_per_minute)
        return [window] if window else []

    def close(self) -> None:
        if self._redis:
            self._redis.close()

    def _hit(self, policy: str, who: str, *, quota: int) -> Window | None:
        """How the policy stands after one more request; None while the counters cannot be reached."""
        if time.monotonic() < self._away_until:
            return None
        item = RateLimitItemPerMinute(quota, namespace=policy)
        try:
            allowed = self._counter.hit(item, who)
            stats = self._counter.get_window_stats(item, who)
        except (RedisError, OSError) as error:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            log.warning("limits.away", error=type(error).__name__, seconds=_AWAY_SECONDS)
            return None
        reset = min(WINDOW_SECONDS, max(1, math.ceil(stats.reset_time - time.time())))
        return Window(
            policy=policy, quota=quota, remaining=stats.remaining if allowed else 0, reset=reset, exceeded=not allowed
        )


def refuse(windows: list[Window]) -> None:
    """Raises `SpearError(rate_limited)` where one of the policies is used up."""
    for window in windows:
        if window.exceeded:
            raise SpearError(
                Code.RATE_LIMITED, f"more than {window.quota} {window.policy} in {WINDOW_SECONDS} seconds",
                policy=window.policy, quota=window.quota, window_seconds=WINDOW_SECONDS, retry_after=window.reset,
            )  # fmt: skip


def headers(windows: list[Window]) -> dict[str, str]:
    """The header fields that tell callers of their limits."""
    if not windows:
        return {}
    return {
        "RateLimit-Policy": ", ".join(f'"{one.policy}";q={one.quota};w={WINDOW_SECONDS}' for one in windows),
        "RateLimit": ", ".join(f'"{one.policy}";r={one.remaining};t={one.reset}' for one in windows),
    }


def _storage(url: str, redis: Redis | None) -> RedisStorage | MemoryStorage:
    return RedisStorage(url, connection_pool=redis.connection_pool, key_prefix="limits") if redis else MemoryStorage()


def _connect(url: str) -> Redis | None:
    if not url:
        return None
    return Redis.from_url(url, socket_connect_timeout=_TIMEOUT_SECONDS, socket_timeout=_TIMEOUT_SECONDS)
