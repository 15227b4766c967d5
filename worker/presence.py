"""A worker's own heartbeat, beside that of its job: so that idle workers are seen too."""

import os
import socket
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import structlog

from app.jobs.database import Database, DatabaseError
from app.jobs.workers import Badge, Workers
from app.settings import Settings

log = structlog.get_logger()

GPUS = Path("/proc/driver/nvidia/gpus")
LONGEST_PAUSE = 15.0


def owner() -> str:
    """What leases of this process bear."""
    return f"{socket.gethostname()}:{os.getpid()}"


def badge(settings: Settings, *, name: str) -> Badge:
    """What this process says of itself."""
    return Badge(
        name=name, owner=owner(), host=socket.gethostname(), pid=os.getpid(), version=version("spear-merge"),
        device=_device(settings),
    )


def keep_present(settings: Settings, *, name: str) -> threading.Thread:
    """Say from now on, as long as this process lives, that it is there; while Postgres is away, nothing is said."""
    thread = threading.Thread(target=_beat, args=(settings, badge(settings, name=name)), name="presence", daemon=True)
    thread.start()
    return thread


def leave(settings: Settings, *, name: str) -> None:
    """Say that the worker ends as it was told to."""
    database = Database(settings.database_url, pool_size=1)
    try:
        Workers(database, lost_seconds=settings.lease_seconds).leave(name)
    except DatabaseError as error:
        log.warning("presence.failed", error=type(error).__name__)
    finally:
        database.close()


def _beat(settings: Settings, mine: Badge) -> None:
    workers = Workers(Database(settings.database_url, pool_size=1), lost_seconds=settings.lease_seconds)
    say: Callable[[Badge], object] = workers.arrive
    pause, never = min(LONGEST_PAUSE, settings.lease_seconds / 4), threading.Event()
    while True:
        try:
            say(mine)
            say = workers.beat
        except DatabaseError as error:
            log.warning("presence.failed", error=type(error).__name__)
        never.wait(pause)


def _device(settings: Settings) -> str:
    """The device by the settings and the kernel's word: nothing here may touch CUDA."""
    if settings.device == "cpu" or (settings.device == "auto" and not GPUS.exists()):
        return "cpu"
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"cuda:{chosen}" if chosen else "cuda"
