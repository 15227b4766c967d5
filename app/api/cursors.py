"""Opaque, signed positions in a list."""

import hashlib
import json
from typing import Any

from itsdangerous import BadSignature, URLSafeSerializer

from app.errors import Code, SpearError


class Cursors:
    """Makes and reads cursors of one kind of list; a cursor of another kind, or of other filters, is refused."""

    def __init__(self, secret: bytes, *, kind: str, filters: Any = None) -> None:
        """`filters` are what the list is narrowed by, in a form that JSON has."""
        bound = "" if filters is None else "." + hashlib.sha256(json.dumps(filters).encode()).hexdigest()
        self._signer = URLSafeSerializer(secret, salt=f"cursor.{kind}{bound}")

    def make(self, position: str | int) -> str:
        return str(self._signer.dumps(position))

    def read(self, cursor: str) -> str | int:
        """Raises `SpearError(invalid_request)` for a cursor that this list did not make."""
        try:
            position = self._signer.loads(cursor)
        except BadSignature:
            raise SpearError(Code.INVALID_REQUEST, "the cursor is not valid", pointer="/cursor") from None
        assert isinstance(position, str | int)
        return position
