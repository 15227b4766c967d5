"""Who calls, and what they may: the part of an API key that the rest of the service works with."""

from dataclasses import dataclass, field

from app.errors import Code, SpearError
from app.jobs.quotas import NO_QUOTA, Quota
from app.jobs.sealed import CallerToken


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, and what they may. `hub_token` is the caller's own, where one came with the request."""

    key_id: str
    owner: str
    scopes: frozenset[str]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    unlimited: bool
    name: str = ""
    credential: str | None = None
    requests_per_minute: int | None = None
    quota: Quota = NO_QUOTA
    hub_token: CallerToken | None = field(default=None, repr=False)

    def require(self, scope: str) -> None:
        """Raises `SpearError(scope_missing)`; `admin` holds every scope."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise SpearError(Code.SCOPE_MISSING, f"this needs the scope {scope}", scope=scope)
