"""Sessions: a signed cookie that names a key and is never the key, and tokens that forms must bring back.

Whether the key is valid is asked anew with every request, so who revokes a key ends its sessions at once. Who signs out
ends the session itself: its name is remembered in Redis until it would have run out, so a copy of the cookie is worth
nothing. Where Redis is away, sign-out is known to this process alone.
"""

import secrets
import time
from dataclasses import dataclass

import structlog
from itsdangerous import BadSignature, URLSafeTimedSerializer
from redis import Redis, RedisError

log = structlog.get_logger()

COOKIE = "spear_session"
FORM_COOKIE = "spear_form"
SECONDS = 12 * 3600
FORM_SECONDS = 3600
_AWAY_SECONDS = 5
_TIMEOUT_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Session:
    """One signed-in browser: its own name, and the id of the key that opened it."""

    name: str
    key_id: str


class Sessions:
    """Makes and reads the cookies, signed with the service's secret."""

    def __init__(self, secret: bytes, *, ended: "Ended") -> None:
        self._cookies = URLSafeTimedSerializer(secret, salt="dashboard.session")
        self._forms = URLSafeTimedSerializer(secret, salt="dashboard.form")
        self._ended = ended

    def begin(self, key_id: str) -> str:
        """The cookie of a new session."""
        return str(self._cookies.dumps([secrets.token_hex(16), key_id]))

    def read(self, cookie: str | None) -> Session | None:
        """The session of a cookie that is ours, not too old and not signed out."""
        try:
            name, key_id = self._cookies.loads(cookie or "", max_age=SECONDS)
        except (BadSignature, ValueError, TypeError):
            return None
        return None if name in self._ended else Session(name=name, key_id=key_id)

    def end(self, session: Session) -> None:
        """From now on its cookie opens nothing."""
        self._ended.add(session.name)

    def close(self) -> None:
        self._ended.close()

    def form_token(self, bound_to: str) -> str:
        """What a form must bring back; it goes with one session, or with one form cookie."""
        return str(self._forms.dumps(bound_to))

    def is_form_token(self, token: str, bound_to: str | None) -> bool:
        try:
            found = self._forms.loads(token, max_age=SECONDS)
        except BadSignature:
            return False
        return bool(bound_to) and secrets.compare_digest(str(found).encode(), str(bound_to).encode())


class Ended:
    """Names of sessions that were signed out, for as long as their cookies would be good."""

    def __init__(self, redis_url: str) -> None:
        options = {"socket_connect_timeout": _TIMEOUT_SECONDS, "socket_timeout": _TIMEOUT_SECONDS}
        self._redis = Redis.from_url(redis_url, **options) if redis_url else None
        self._own: dict[str, float] = {}
        self._away_until = 0.0

    def add(self, name: str) -> None:
        now = time.monotonic()
        self._own = {kept: until for kept, until in self._own.items() if until > now} | {name: now + SECONDS}
        if self._redis:
            try:
                self._redis.set(f"signed-out:{name}", 1, ex=SECONDS)
            except (RedisError, OSError) as error:
                self._away(error)

    def __contains__(self, name: str) -> bool:
        if name in self._own:
            return True
        if self._redis is None or time.monotonic() < self._away_until:
            return False
        try:
            return bool(self._redis.exists(f"signed-out:{name}"))
        except (RedisError, OSError) as error:
            self._away(error)
            return False

    def close(self) -> None:
        if self._redis:
            self._redis.close()

    def _away(self, error: Exception) -> None:
        self._away_until = time.monotonic() + _AWAY_SECONDS
        log.warning("sessions.away", error=type(error).__name__, seconds=_AWAY_SECONDS)
