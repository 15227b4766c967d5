"""Opaque, signed positions in a list."""

from itsdangerous import BadSignature, URLSafeSerializer

from app.errors import Code, SpearError


class Cursors:
    """Makes and reads cursors of one kind of list; a cursor of another kind is refused."""

    def __init__(self, secret: bytes, *, kind: str) -> None:
        self._signer = URLSafeSerializer(secret, salt=f"cursor.{kind}")

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
