"""Callers' own Hub tokens, kept for one job under seal and wiped with its end.

AES-256-GCM under a key derived from the service's secret (HKDF-SHA256, RFC 5869); table, column and row are the
additional data, so that a ciphertext that is copied to another row cannot be opened there.
"""

import os
from collections.abc import Callable
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy.orm import Session

from app.errors import Code, SpearError
from app.jobs.access_tables import SealedToken
from app.jobs.database import Database

_NONCE_BYTES = 12
_PURPOSE = b"spear/sealed/1"


class Seal:
    """Encrypts and decrypts what belongs to one place in the database."""

    def __init__(self, secret: bytes) -> None:
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(secret)
        self._cipher = AESGCM(key)

    def close(self, text: str, *, table: str, column: str, row: str) -> bytes:
        """Nonce, ciphertext and tag."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), _place(table, column, row))

    def open(self, sealed: bytes, *, table: str, column: str, row: str) -> str:
        """Raises `SpearError(not_ready)` where it was sealed with another secret, or for another place."""
        nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, body, _place(table, column, row)).decode()
        except InvalidTag:
            message = f"the sealed token of {row} cannot be opened: is SPEAR_SECRET_FILE the same everywhere?"
            raise SpearError(Code.NOT_READY, message) from None


class CallerToken:
    """A Hub token that a caller sent with a request. No repr, no message and no pickle of it holds the token."""

    __slots__ = ("_seal", "_text")

    def __init__(self, text: str, seal: Seal) -> None:
        self._text = text
        self._seal = seal

    def __repr__(self) -> str:
        return "CallerToken(***)"

    def __reduce__(self) -> tuple[type[Self], tuple[str, ...]]:
        raise TypeError("a caller's token is not pickled")

    def reveal(self) -> str:
        return self._text

    def keep(self, session: Session, job_id: str) -> None:
        """Seal it for a job whose row is there."""
        sealed = self._seal.close(self._text, table=SealedToken.__tablename__, column="sealed", row=job_id)
        session.add(SealedToken(job_id=job_id, sealed=sealed))


def open_token(database: Database, job_id: str, *, secret: Callable[[], bytes]) -> str | None:
    """The token that came with a job, if one did and the job has not ended; `secret` is asked for only then."""
    with database.transaction() as session:
        row = session.get(SealedToken, job_id)
    if row is None:
        return None
    return Seal(secret()).open(row.sealed, table=SealedToken.__tablename__, column="sealed", row=job_id)


def _place(table: str, column: str, row: str) -> bytes:
    return f"{table}/{column}/{row}".encode()
