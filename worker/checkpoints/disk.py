"""A full disk, told as an expected failure that names the file."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Code, SpearError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def disk_full_named(file: str) -> Iterator[None]:
    """Turns a full disk (or quota, or a file past the limit) into `SpearError(DISK_FULL)`; `file` is being written."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        message = f"no room for the merged checkpoint: {error.strerror} ({file})"
        raise SpearError(Code.DISK_FULL, message, file=file) from error
