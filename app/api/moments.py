"""Points in time, as JSON writes them and no other way: numbers and bare dates are not taken for seconds since 1970."""

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Strict

_WRITTEN = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}.*")


def _written(value: Any) -> Any:
    if not isinstance(value, str) or not _WRITTEN.fullmatch(value):
        raise ValueError("must be a date and a time (RFC 3339)")
    return value


Moment = Annotated[datetime, Strict(strict=False), BeforeValidator(_written)]
