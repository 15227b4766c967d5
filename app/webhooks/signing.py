"""Signatures by Standard Webhooks. Each owner of keys has a secret of their own, derived and never stored."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook

from app.settings import Settings

PREFIX = "whsec_"


def secrets_of(owner: str, *, settings: Settings) -> list[str]:
    """The owner's secrets, as receivers check with; more than one while the service's file holds several (rotation).

    Derived by HMAC from the lines of `webhook_secret_file`, or else from the service's own secret: what one owner
    knows tells nothing of another's.
    """
    return [PREFIX + base64.b64encode(_derived(root, owner)).decode() for root in _roots(settings)]


def sign(body: str, *, message_id: str, at: datetime, secrets: list[str]) -> dict[str, str]:
    """The headers of one attempt."""
    moment = at.astimezone(UTC)
    signatures = [Webhook(secret).sign(message_id, moment, body) for secret in secrets]
    return {
        "Content-Type": "application/json", "User-Agent": "spear-merge", "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())), "webhook-signature": " ".join(signatures),
    }


def _roots(settings: Settings) -> list[bytes]:
    if settings.webhook_secret_file is None:
        return [settings.secret]
    lines = [line.strip() for line in settings.webhook_secret_file.read_text().splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{settings.webhook_secret_file} is empty")
    return [line.removeprefix(PREFIX).encode() for line in lines]


def _derived(root: bytes, owner: str) -> bytes:
    return hmac.digest(root, b"spear webhook\x00" + owner.encode(), hashlib.sha256)
