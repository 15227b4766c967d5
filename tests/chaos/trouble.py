"""Trouble at the Hub for one request in five: every kind that a real Hub and a real network make."""

from collections import Counter
from typing import Any

from tests.fixtures.hub import LocalHub

SHARE = 0.2

# what strikes any request, with its weight
_ANYWHERE: tuple[tuple[float, str, dict[str, Any]], ...] = (
    (3, "status", {"status": 503}),
    (3, "status", {"status": 429, "retry_after": 1}),
    (2, "status", {"status": 500}),
    (3, "status_after", {"status": 500}),
    (2, "apply_then_drop", {}),
    (2, "drop", {}),
    (2, "truncate", {"bytes": 7}),
    (2, "slow", {"delay": 0.5, "bytes_per_second": 100_000}),
    (1, "late", {"delay": 4.5}),  # longer than the client's patience: carried out when nobody listens any more
)
# what strikes certain requests before that, as a share of those
_CERTAIN: tuple[tuple[float, str, dict[str, Any]], ...] = (
    (0.2, "stale", {"path": r"/refs$", "method": "GET", "delay": 5}),
    (0.05, "status", {"path": "/commit/", "method": "POST", "status": 412}),
    (0.05, "status_after", {"path": "/commit/", "method": "POST", "status": 412}),
    (0.1, "apply_then_drop", {"path": "/commit/", "method": "POST"}),
    (0.1, "drop", {"path": "^/_lfs/upload", "method": "PUT"}),
)
TIMEOUT_SECONDS = 4
"""for the service's calls to this Hub: what is `late` is beyond it"""


def trouble(hub: LocalHub, *, seed: int, share: float = SHARE) -> None:
    """Strike `share` of all requests, chosen by the seed."""
    for number, (part, action, options) in enumerate(_CERTAIN):
        hub.fault(action, times=None, share=part, seed=seed + number, **options)
    whole, left = sum(weight for weight, *_ in _ANYWHERE), 1.0
    for number, (weight, action, options) in enumerate(_ANYWHERE, start=100):
        part = share * weight / whole
        # rules are asked one after the other: each sees only what those before it let pass
        hub.fault(action, times=None, share=part / left, seed=seed + number, **options)
        left -= part


def struck(hub: LocalHub) -> dict[str, int]:
    """How many requests met each kind of trouble, and how many there were."""
    rules = hub.faults()
    counts: Counter[str] = Counter()
    for rule in rules:
        name = f"{rule['action']} {rule['status']}" if rule["action"].startswith("status") else rule["action"]
        counts[name] += rule["hits"]
    anywhere = next(rule for rule in rules if not rule["match"]["path"])  # it sees what the certain ones let pass
    certain = sum(rule["hits"] for rule in rules if rule["match"]["path"])
    return {"requests": anywhere["seen"] + certain, "struck": counts.total(), **counts}
