"""Processes that measure points beside each other, each with one arithmetic thread and one live model.

They are forked with the models loaded, which stay shared: a process's own is only what it writes, its live model.
"""

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from app.errors import Code, SpearError
from worker.death import die_with
from worker.evaluation.shortage import is_shortage

SPARE = 0.8
"""share of the memory that is free that all processes may take together"""
_BEAT_SECONDS = 1.0
_GROUP = Path("/sys/fs/cgroup")


class Crew:
    """Does one kind of work, on `size` processes once it has been started; with a size of 1 in this process.

    Work is done in the order of its items, and results come in that order.
    """

    def __init__(self, *, size: int, told: Callable[[], None] = lambda: None) -> None:
        """`told` is called here for every sign of life of a process."""
        self.size = size
        self._told = told
        self._work: Callable[[Any], Any] | None = None
        self._hands: dict[Connection, Any] = {}  # processes by the ends of their pipes
        self._voice: Connection | None = None  # in a process of the crew, its own end
        self._spoken = 0.0

    def start(self, work: Callable[[Any], Any]) -> None:
        """Fork. `work` may hold anything; its items and results are pickled."""
        self._work = work
        context = multiprocessing.get_context("fork")
        for _ in range(self.size if self.size > 1 else 0):
            here, there = context.Pipe()
            process = context.Process(target=self._serve, args=(there, os.getpid()), daemon=True)
            process.start()
            there.close()  # the process alone holds it: its end is heard as the pipe's end
            self._hands[here] = process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe, process in self._hands.items():
            process.kill()
            process.join()
            pipe.close()
        self._hands.clear()

    def beat(self) -> None:
        """A sign of life, from wherever work is done; may be given as often as one likes."""
        if self._voice is None:
            self._told()
        elif time.monotonic() - self._spoken >= _BEAT_SECONDS:
            self._spoken = time.monotonic()
            self._voice.send(("beat", None))

    def each(self, items: Sequence[Any]) -> Iterator[Any]:
        """The results in the order of the items, each as soon as it and those before it are there.

        Raises `SpearError` as the work does, `out_of_memory` or `compute_crashed` where a process died. After an error
        the crew is of no use any more.
        """
        assert self._work is not None
        if self.size <= 1:
            yield from map(self._work, items)
            return
        left, found, at = iter(enumerate(items)), dict[int, Any](), 0
        busy: dict[Connection, int] = {}
        for pipe in self._hands:
            self._give(pipe, left, busy)
        while at < len(items):
            if at in found:
                yield found.pop(at)
                at += 1
                continue
            for pipe in _readable(busy):
                kind, said = self._hear(pipe)
                if kind == "beat":
                    self._told()
                    continue
                found[busy.pop(pipe)] = said
                self._give(pipe, left, busy)

    def _give(self, pipe: Connection, left: Iterator[tuple[int, Any]], busy: dict[Connection, int]) -> None:
        """The next item, if there is one."""
        number, item = next(left, (-1, None))
        if number < 0:
            return
        try:
            pipe.send(item)
        except OSError:
            raise self._death(pipe) from None
        busy[pipe] = number

    def _hear(self, pipe: Connection) -> tuple[str, Any]:
        """A sign of life, or a result; what went wrong is raised."""
        try:
            kind, said = pipe.recv()
        except (EOFError, OSError):
            raise self._death(pipe) from None
        if kind == "error":
            raise SpearError(said["code"], said["message"], pointer=said["pointer"], **said["names"])
        if kind == "crash":
            raise RuntimeError(said)
        return kind, said

    def _death(self, pipe: Connection) -> SpearError:
        process = self._hands[pipe]
        process.join()
        if process.exitcode == -signal.SIGKILL:
            said = "a process that measures points was killed, most likely because memory ran out"
            return SpearError(Code.OUT_OF_MEMORY, said, signal=int(signal.SIGKILL))
        said = f"a process that measures points ended with status {process.exitcode}"
        return SpearError(Code.COMPUTE_CRASHED, said, status=process.exitcode)

    def _serve(self, pipe: Connection, parent: int) -> None:
        """The life of a process of the crew."""
        die_with(parent)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads did not come along
        torch.set_num_threads(1)
        self._voice, self._hands = pipe, {}
        assert self._work is not None
        while True:
            try:
                item = pipe.recv()
            except EOFError:
                return
            pipe.send(_answered(self._work, item))


def affordable(processes: int, *, nbytes: int, shared: int = 0) -> int:
    """How many of the processes there is memory for, `nbytes` each beside what all share; at least one."""
    return max(1, min(processes, int((SPARE * _free() - shared) // max(1, nbytes))))


def _answered(work: Callable[[Any], Any], item: Any) -> tuple[str, Any]:
    """The result, or what went wrong: `SpearError` itself does not survive pickling."""
    try:
        return "result", work(item)
    except SpearError as error:
        names = {"code": error.code, "message": error.message, "pointer": error.pointer, "names": error.names}
        return "error", names
    except Exception as error:  # noqa: BLE001  (told to the process that forked this one)
        if is_shortage(error):
            said = f"memory ran out: {str(error).partition(chr(10))[0]}"
            return "error", {"code": Code.OUT_OF_MEMORY, "message": said, "pointer": None, "names": {}}
        return "crash", "".join(traceback.format_exception(error))


def _readable(busy: dict[Connection, int]) -> list[Connection]:
    return [pipe for pipe in wait(list(busy)) if isinstance(pipe, Connection)]


def _free() -> int:
    """Bytes that may still be taken: of the machine, and of a container's limit where there is one."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    free = 1024 * int(next(line[1] for line in lines if line[0] == "MemAvailable:"))
    try:
        limit, used = (int((_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        kept = (line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        used -= next(int(line[1]) for line in kept if line[0] == "inactive_file")  # files read, given up on demand
    except (OSError, ValueError, StopIteration):  # no version 2 group, or no limit ("max")
        return free
    return max(0, min(free, limit - used))
