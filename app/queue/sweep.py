"""The sweep: every few seconds, rescue what nobody works on and announce what nobody has heard of.

Its process delivers the webhooks too.
"""

import threading

import structlog

from app.jobs.audit import Audit
from app.jobs.database import Database, DatabaseError
from app.jobs.rescue import Rescue
from app.jobs.sheets import AnswerSheets
from app.jobs.spectra import Spectra
from app.jobs.workers import Workers
from app.queue.broker import make_celery, queued_messages
from app.queue.dispatch import announce
from app.settings import Settings
from app.webhooks.sender import send

log = structlog.get_logger()
SENDER_PATIENCE_SECONDS = 3.0
"""what a webhook under way may still take at the end; one that is cut off is sent again"""


def run(settings: Settings, *, stop: threading.Event) -> None:
    """Sweep until `stop` is set. Any number of these may run; faults of Postgres and Redis are survived."""
    database = Database(settings.database_url, pool_size=1)
    rescue = Rescue(
        database, resend_seconds=settings.resend_seconds, idempotency_hours=settings.idempotency_hours
    )
    spectra = Spectra(database, max_bytes=settings.spectra_max_bytes)
    sheets = AnswerSheets(database, max_bytes=settings.sheets_max_bytes)
    audit = Audit(database, days=settings.audit_days)
    workers = Workers(database, lost_seconds=settings.lease_seconds)
    celery = make_celery(settings)
    senders = send(settings, stop=stop)
    while not stop.is_set():
        try:
            for job_id in rescue.sweep(waiting=queued_messages(settings.redis_url)):
                announce(celery, job_id)
            spectra.trim()
            sheets.trim()
            audit.trim()
            workers.forget()
        except DatabaseError as error:
            log.warning("sweep.failed", error=type(error).__name__)
        stop.wait(settings.sweep_seconds)
    for sender in senders:
        sender.join(SENDER_PATIENCE_SECONDS)
