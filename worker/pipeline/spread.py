"""One function over many items, on several processes with one arithmetic thread each."""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from app.errors import SpearError

PR_SET_PDEATHSIG = 1
Item = TypeVar("Item")
Result = TypeVar("Result")

_function: Callable[[Any], Any] | None = None  # set in a forked process before its first item


def spread(function: Callable[[Item], Result], items: Sequence[Item], *, processes: int) -> Iterator[Result]:
    """The results of `function(item)` as they are ready, in any order; with one process in turn, in this one.

    One thread always: several would add up in another order, and the last digits would tell how many there were. The
    processes are forked, so `function` may hold anything (open files, closures); items and results are pickled.
    They die with this process. `SpearError` is raised here as it was there.
    """
    count = min(processes, len(items))
    if count <= 1:
        for item in items:
            with _one_thread():
                result = function(item)
            yield result
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(function, os.getpid())) as pool:
        waiting = [pool.submit(_call, item) for item in items]
        try:
            for ready in as_completed(waiting):
                result, error = ready.result()
                if error:
                    raise SpearError(error["code"], error["message"], pointer=error["pointer"], **error["names"])
                yield result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _start(function: Callable[[Any], Any], parent: int) -> None:
    global _function  # noqa: PLW0603  (a pool hands nothing but items to its processes)
    _function = function
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)
    torch.set_num_threads(1)


def _call(item: Any) -> tuple[Any, dict[str, Any] | None]:
    """The result, or what an expected failure says: `SpearError` itself does not survive pickling."""
    assert _function is not None
    try:
        return _function(item), None
    except SpearError as error:
        names = {"code": error.code, "message": error.message, "pointer": error.pointer, "names": error.names}
        return None, names
