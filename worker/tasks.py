"""The Celery worker: one task, one job at a time, in a process of its own. The database says which job is next."""

import multiprocessing
import os
import socket
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_process_init, worker_ready, worker_shutdown, worker_shutting_down

from app.logs import configure
from app.queue.broker import TASK, make_celery
from app.queue.dispatch import announce
from app.settings import Settings
from app.tracing import tracing
from worker.death import die_with
from worker.metrics import serve
from worker.presence import keep_present, leave, owner
from worker.supervisor import supervise


def make_worker(settings: Settings, *, name: str = "spear-worker") -> Celery:
    """The Celery application with its task and what happens around it."""
    celery = make_celery(settings)
    draining = multiprocessing.get_context("fork").Event()
    parent, full = os.getpid(), f"{name}@{socket.gethostname()}"

    @celery.task(name=TASK)  # type: ignore[untyped-decorator]
    def run(*_: Any, **__: Any) -> None:
        # whatever the message says, and in whatever format: it means that there is work
        supervise(settings=settings, owner=owner(), draining=draining.is_set)

    def begin(**_: Any) -> None:
        die_with(parent)
        configure(settings.log_level)
        tracing.send_to(settings.otlp_endpoint, service="spear-worker")
        serve(settings)
        keep_present(settings, name=full)

    def drain(**_: Any) -> None:
        draining.set()

    def part(**_: Any) -> None:
        leave(settings, name=full)

    def wake(**_: Any) -> None:
        # what a worker that died has left on this disk is cleared although no job comes
        announce(celery, "")

    def keep_logs(**_: Any) -> None:
        configure(settings.log_level)  # somebody answers, so Celery leaves the logs as they are

    setup_logging.connect(keep_logs, weak=False)
    worker_process_init.connect(begin, weak=False)
    worker_ready.connect(wake, weak=False)
    worker_shutting_down.connect(drain, weak=False)
    worker_shutdown.connect(part, weak=False)
    return celery
