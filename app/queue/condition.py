"""How a broker is, for `spear doctor`."""

import time
from dataclasses import dataclass

from redis import Redis, RedisError


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What was seen; `error` in one line where nothing was."""

    error: str = ""
    server: str = ""
    seconds: float = 0.0
    waiting: int = 0


def look(url: str, *, timeout_seconds: float = 3) -> Condition:
    """Connect once, ask, and leave. Never raises."""
    began = time.monotonic()
    try:
        with Redis.from_url(url, socket_connect_timeout=timeout_seconds, socket_timeout=timeout_seconds) as redis:
            info = redis.info("server")
            waiting = int(redis.llen("celery"))
    except (RedisError, OSError, ValueError) as error:
        return Condition(error=str(error) or type(error).__name__)
    name = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "")
    return Condition(server=f"{name} {version}", seconds=time.monotonic() - began, waiting=waiting)
