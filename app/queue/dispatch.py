"""Telling the workers of a job. Best effort: the sweep repeats what gets lost."""

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app.queue.broker import TASK

log = structlog.get_logger()


def announce(celery: Celery, job_id: str) -> bool:
    """Send the job's id; False (and a log line) where the broker cannot be reached."""
    try:
        celery.send_task(TASK, args=[job_id], retry=False, ignore_result=True)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("announce.failed", job=job_id, error=type(error).__name__)
        return False
    return True
