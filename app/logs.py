"""Structured logs: JSON lines on stderr, with anything that looks like a token taken out."""

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
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
            _redacted,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    for noisy in ("httpx2", "httpcore2", "huggingface_hub", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _redacted(_: Any, __: str, rendered: Any) -> str:
    return redact(str(rendered))
