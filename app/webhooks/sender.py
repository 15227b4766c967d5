"""Empties the outbox of webhooks. Runs in the sweep's process; any number of them may run."""

import json
import random
import threading
from datetime import UTC, datetime

import structlog

from app.jobs.database import Database, DatabaseError
from app.jobs.webhook_tables import Delivery
from app.jobs.webhooks import Deliveries
from app.settings import Settings
from app.webhooks.policy import Policy
from app.webhooks.signing import secrets_of, sign
from app.webhooks.transport import post

log = structlog.get_logger()
_POLL_SECONDS = 1.0
_BROKEN_SECONDS = 5.0


def ladder(text: str) -> tuple[float, ...]:
    """The seconds of the setting `webhook_retry_seconds`."""
    return tuple(float(step) for step in text.split(",") if step.strip())


class Sender:
    """Takes deliveries and sends them, one at a time per thread."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._policy = Policy.of(settings.webhook_hosts)
        self._outbox = Deliveries(database, ladder=ladder(settings.webhook_retry_seconds))

    def run(self, stop: threading.Event) -> None:
        """Send what is due until `stop` is set; faults of the database are survived."""
        while not stop.is_set():
            try:
                found = self.send_one()
            except DatabaseError as error:
                log.warning("webhook.database", error=type(error).__name__)
                stop.wait(_BROKEN_SECONDS)
            except Exception as error:  # noqa: BLE001  (a thread that dies would silence all webhooks)
                log.warning("webhook.crashed", error=type(error).__name__)
                stop.wait(_BROKEN_SECONDS)
            else:
                if not found:
                    stop.wait(_POLL_SECONDS)

    def send_one(self) -> bool:
        """Attempt one due delivery; False if there was none."""
        delivery = self._outbox.take()
        if delivery is None:
            return False
        body = json.dumps(delivery.payload, separators=(",", ":"))
        headers = sign(
            body, message_id=delivery.id, at=datetime.now(UTC),
            secrets=secrets_of(delivery.owner, settings=self._settings),
        )
        outcome = post(delivery.url, body=body.encode(), headers=headers, policy=self._policy)
        self._outbox.record(delivery, outcome, jitter=random.uniform(1.0, 1.2))  # noqa: S311  (spreads load only)
        self._tell(delivery, status=outcome.status_code, error=outcome.error)
        return True

    def _tell(self, delivery: Delivery, *, status: int | None, error: str | None) -> None:
        log.info(
            "webhook.sent", delivery=delivery.id, job=delivery.job_id, attempt=delivery.tries, status=status,
            error=error,
        )


def send(settings: Settings, *, stop: threading.Event) -> list[threading.Thread]:
    """Start the senders of this process; join them after `stop` is set."""
    database = Database(settings.database_url, pool_size=max(1, settings.webhook_senders))
    sender = Sender(settings, database)
    threads = [
        threading.Thread(target=sender.run, args=[stop], name=f"webhooks-{i}", daemon=True)
        for i in range(settings.webhook_senders)
    ]
    for thread in threads:
        thread.start()
    return threads
