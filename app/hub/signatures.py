"""Signatures of manifests by Ed25519, and the check of a published model against its signed manifest.

The manifest lists every published file with its sha256, so its signature vouches for all of them.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.hub.commits import MANIFEST, SIGNATURE, WEIGHTS
from app.hub.pins import Pin, RemoteFile, pin

ALGORITHM = "ed25519"
_MOST_BYTES = 256_000_000


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found to be whole: this commit, this job's, by this key."""

    repo: str
    commit: str
    job_id: str
    key_id: str
    manifest_sha256: str
    files: int


def read_private(path: Path) -> Ed25519PrivateKey:
    """The key in a PEM file without a password. Raises `ValueError` for anything else."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"{path} holds no private key in PEM without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} holds a key that is not Ed25519")  # noqa: TRY004  (the operator's file)
    return key


def read_public(path: Path) -> Ed25519PublicKey:
    """The key in a PEM file. Raises `ValueError` for anything else."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path} holds no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path} holds a key that is not Ed25519")  # noqa: TRY004  (the user's file)
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the sha256 of the raw public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign_manifest(folder: Path, *, key: Ed25519PrivateKey) -> None:
    """Write the manifest's signature beside it. The same manifest and key give the same bytes."""
    manifest = (folder / MANIFEST).read_bytes()
    document = {
        "algorithm": ALGORITHM, "key_id": key_id(key.public_key()),
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "signature": base64.b64encode(key.sign(manifest)).decode(),
    }
    (folder / SIGNATURE).write_text(json.dumps(document, sort_keys=True, indent=2) + "\n")


def verify(hub: Hub, repo: str, revision: str, *, key: Ed25519PublicKey) -> Verified:
    """Check signature, manifest and every file of a published model.

    Raises `SpearError(verification_failed)` naming what is missing, other than listed, or not signed by the key.
    """
    pinned = pin(hub, repo, revision)
    manifest = _read(hub, pinned, MANIFEST)
    _check_signature(pinned, manifest, _read(hub, pinned, SIGNATURE), key=key)
    document = json.loads(manifest)
    for path, listed in document["outputs"].items():
        if _sha256(hub, pinned, path) != listed["sha256"]:
            raise _failed(pinned, f"{path} is not the file that the signed manifest lists", file=path)
    known = {*document["outputs"], SIGNATURE}
    for path in (file.path for file in pinned.files):
        if path.endswith(WEIGHTS) and path not in known:
            raise _failed(pinned, f"{path} is a weight file that the signed manifest does not list", file=path)
    return Verified(
        repo=repo, commit=pinned.commit, job_id=document["job_id"], key_id=key_id(key),
        manifest_sha256=hashlib.sha256(manifest).hexdigest(), files=len(document["outputs"]),
    )


def _check_signature(pinned: Pin, manifest: bytes, raw: bytes, *, key: Ed25519PublicKey) -> None:
    try:
        document: dict[str, Any] = json.loads(raw)
        if document["algorithm"] != ALGORITHM:
            raise _failed(pinned, f"{SIGNATURE} is of another algorithm", file=SIGNATURE)
        key.verify(base64.b64decode(document["signature"], validate=True), manifest)
    except (ValueError, TypeError, KeyError):
        raise _failed(pinned, f"{SIGNATURE} is not a signature of ours", file=SIGNATURE) from None
    except InvalidSignature:
        signer = str(document.get("key_id"))[:64]
        words = f"{MANIFEST} is not signed by key {key_id(key)} (its signature names {signer})"
        raise _failed(pinned, words, file=SIGNATURE) from None


def _sha256(hub: Hub, pinned: Pin, path: str) -> str | None:
    """The Hub's own sha256 of a large file; that of the content of a small one; None where there is no such file."""
    file = pinned.file(path)
    if file is None:
        return None
    if file.digest.startswith("sha256:"):
        return file.digest.removeprefix("sha256:")
    return hashlib.sha256(_content(hub, pinned, file)).hexdigest()


def _read(hub: Hub, pinned: Pin, path: str) -> bytes:
    file = pinned.file(path)
    if file is None:
        raise _failed(pinned, f"{pinned.repo} has no {path}", file=path)
    return _content(hub, pinned, file)


def _content(hub: Hub, pinned: Pin, file: RemoteFile) -> bytes:
    if file.size > _MOST_BYTES:
        raise _failed(pinned, f"{file.path} is too large to be read", file=file.path)
    return hub.read(pinned.repo, pinned.commit, file.path, size=file.size) if file.size else b""


def _failed(pinned: Pin, message: str, *, file: str) -> SpearError:
    return SpearError(Code.VERIFICATION_FAILED, message, repo=pinned.repo, commit=pinned.commit, file=file)
