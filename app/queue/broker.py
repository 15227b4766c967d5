"""The Celery application: a wake-up for workers, nothing more.

A message carries a job's id and is acknowledged when it arrives: the row in Postgres is the truth, the lease the only
clock of recovery (see docs/decisions/0001-row-is-truth.md). No result backend, no retries, no visibility games.
"""

from celery import Celery
from redis import Redis, RedisError

from app.settings import Settings

TASK = "spear.run"


def make_celery(settings: Settings, *, patience_seconds: float = 30) -> Celery:
    """The application for both sides; the API never imports the task, it sends its name.

    `patience_seconds` bounds a single word with the broker: short where a caller waits for the answer.
    """
    celery = Celery("spear", broker=_broker_url(settings.redis_url), set_as_current=False)
    celery.conf.update(
        task_acks_late=False,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_pool="prefork",
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        broker_transport_options={
            "socket_connect_timeout": 3,
            "socket_timeout": patience_seconds,
            "health_check_interval": 25,
            "visibility_timeout": 86_400,
        },
    )
    return celery


def _broker_url(url: str) -> str:
    """Celery's spelling of a Redis URL: a socket is `redis+socket://`."""
    return url.replace("unix://", "redis+socket://", 1) if url.startswith("unix://") else url


def queued_messages(url: str) -> int:
    """How many messages wait with the broker; 0 where it cannot be asked."""
    try:
        with Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as redis:
            return int(redis.llen("celery"))
    except (RedisError, OSError):
        return 0
