"""How a publishing process ends itself, where the Hub's client is too deep in a call to be asked to stop."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DYING_STATUS = 75
PATIENCE_SECONDS = 2.0


@contextmanager
def dying_at_deadline(seconds: float) -> Iterator[Callable[[], None]]:
    """A clock, begun by calling what is yielded, that ends this process: nothing is sent after it, whatever hangs."""
    timer = threading.Timer(seconds, os._exit, [DYING_STATUS])
    timer.daemon = True
    try:
        yield timer.start
    finally:
        timer.cancel()


@contextmanager
def stopped_by_force(
    *, due: Callable[[], bool], abandon: Callable[[], None], lock: threading.Lock,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[None]:
    """If the work has to stop (`due`) and has not after the patience, settle (`abandon`) and end this process.

    The last question and the settling are under `lock`: whoever holds it meanwhile cannot pass the point of no return.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            if due() and not over.wait(patience_seconds):
                with lock:
                    if due() and not over.is_set():
                        _end(abandon)

    watcher = threading.Thread(target=watch, name="upload-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _end(abandon: Callable[[], None]) -> None:
    """Whatever settling comes to: a process that stayed would go on publishing."""
    try:
        abandon()
    finally:
        os._exit(DYING_STATUS)
