"""Telling the workers of a job. Best effort: the sweep repeats what gets lost."""

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app.jobs.formats import MESSAGE_FORMAT, MESSAGE_HEADER
from app.queue.broker import TASK
from app.tracing import HEADER, traceparent

log = structlog.get_logger()


def announce(celery: Celery, job_id: str) -> bool:
    """Wake a worker, which claims the job that is next, this one or another.

    False (and a log line) where the broker cannot be reached.
    """
    try:
        headers = {MESSAGE_HEADER: MESSAGE_FORMAT} | ({HEADER: trace} if (trace := traceparent()) else {})
        celery.send_task(TASK, args=[job_id], headers=headers, retry=False, ignore_result=True)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("announce.failed", job=job_id, error=type(error).__name__)
        return False
    return True
