"""Structured logs: JSON lines on stderr, with anything that looks like a token taken out.

What libraries log by way of `logging` becomes such lines too, with the job, the request and the trace they happened in.
"""

import logging
import re
import sys
from typing import Any

import structlog

_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}|spear_[0-9a-f]{8}_[A-Za-z0-9_-]{8,}|(?<=Bearer )\S+")


def redact(text: str) -> str:
    """The text without tokens."""
    return _TOKEN.sub("[redacted]", text)


def configure(level: str) -> None:
    """Set up this process's logs."""
    structlog.configure(
        processors=[*_COMMON, structlog.processors.format_exc_info, _JSON, _redacted],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(_NOW),
        cache_logger_on_first_use=False,
    )
    _take_over(level)
    for noisy in ("httpx2", "httpcore2", "huggingface_hub", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _Now:
    """Standard error, whatever that is at the moment."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _Foreign(logging.StreamHandler[Any]):
    """Ours, so that it is known again."""


def _take_over(level: str) -> None:
    """Have what goes through `logging` written in our form, at this level."""
    handler = _Foreign(_NOW)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_COMMON],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.format_exc_info,
                _JSON, _redacted,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if not isinstance(other, _Foreign)] + [handler]
    root.setLevel(level.upper())
    pools = logging.getLogger("multiprocessing")  # it hands nothing on to the root
    pools.handlers, pools.propagate = [handler], False
    logging.captureWarnings(capture=True)


def _redacted(_: Any, __: str, rendered: Any) -> str:
    return redact(str(rendered))


_COMMON: tuple[Any, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
_NOW: Any = _Now()
_JSON = structlog.processors.JSONRenderer(default=str)
