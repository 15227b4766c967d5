"""Signed manifests: published with the model, and what a check of them finds."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.hub.publish import publish
from app.hub.signatures import key_id, read_private, read_public, sign_manifest, verify
from app.recipes import Target
from tests.fixtures.checkpoints import checkpoint

MANIFEST = "merge_manifest.json"
JOB = "mrg_01"


class Signed:
    """A published, signed model."""

    def __init__(self, local_hub, folder: Path) -> None:
        self.folder = folder / "output"
        self.folder.mkdir()
        self.user, self.token = local_hub.fresh_user("sig")
        self.hub = Hub(local_hub.endpoint, self.token, timeout_seconds=5)
        self.api = local_hub.api(self.token)
        self.repo = f"{self.user}/restored"
        self.private = Ed25519PrivateKey.generate()
        self.key = self.private.public_key()

    def publish(self, *, signed: bool = True, job: str = JOB) -> str:
        for path, data in checkpoint(shards=2, seed=3).items():
            (self.folder / path).write_bytes(data)
        (self.folder / "README.md").write_text("---\nlicense: mit\n---\n# restored\n")
        outputs = {
            path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in self.folder.iterdir() if not path.name.startswith(MANIFEST)
        }
        content = json.dumps({"job_id": job, "outputs": outputs}).encode()
        (self.folder / MANIFEST).write_bytes(content)
        if signed:
            sign_manifest(self.folder, key=self.private)
        return publish(
            self.hub, Target(repo=self.repo), self.folder, job_id=job, title="Merge", record=lambda _: None,
            check_lease=lambda: None, progress=lambda _: None, stop=lambda: False, deadline_seconds=20,
            patience_seconds=1, manifest_sha256=hashlib.sha256(content).hexdigest(),
        ).commit

    def verify(self, key=None):
        return verify(self.hub, self.repo, "main", key=key or self.key)

    def put(self, path: str, content: bytes) -> None:
        self.api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=self.repo)

    def pem(self, folder: Path) -> tuple[Path, Path]:
        private, public = folder / "signing.pem", folder / "signing.pub"
        private.write_bytes(self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_bytes(self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return private, public


@pytest.fixture
def signed(local_hub, tmp_path):
    made = Signed(local_hub, tmp_path)
    yield made
    made.hub.close()


def refused(call) -> SpearError:
    with pytest.raises(SpearError) as caught:
        call()
    assert caught.value.code is Code.VERIFICATION_FAILED
    return caught.value


def test_a_signed_model_is_published_in_one_commit_and_verified(signed):
    commit = signed.publish()
    found = signed.verify()
    assert (found.commit, found.job_id, found.key_id) == (commit, JOB, key_id(signed.key))
    assert found.files == len(list(signed.folder.iterdir())) - 2


def test_the_signature_of_a_manifest_is_always_the_same(signed):
    signed.publish()
    first = (signed.folder / f"{MANIFEST}.sig").read_bytes()
    sign_manifest(signed.folder, key=signed.private)
    assert (signed.folder / f"{MANIFEST}.sig").read_bytes() == first


@pytest.mark.parametrize("path", ["model-00001-of-00002.safetensors", "config.json", "README.md"])
def test_a_file_that_was_changed_afterwards_is_named(signed, path):
    signed.publish()
    content = (signed.folder / path).read_bytes()
    signed.put(path, content[:-1] + bytes([content[-1] ^ 1]))
    assert refused(signed.verify).names["file"] == path


def test_a_file_that_was_taken_away_is_named(signed):
    signed.publish()
    signed.api.delete_file("config.json", repo_id=signed.repo)
    assert refused(signed.verify).names["file"] == "config.json"


def test_weights_that_were_laid_beside_are_named(signed):
    signed.publish()
    signed.put("model.safetensors", b"other weights")
    assert refused(signed.verify).names["file"] == "model.safetensors"


def test_another_key_is_refused_and_both_are_named(signed):
    signed.publish()
    other = Ed25519PrivateKey.generate().public_key()
    message = refused(lambda: signed.verify(other)).message
    assert key_id(other) in message
    assert key_id(signed.key) in message


def test_a_changed_manifest_is_not_signed_any_more(signed):
    signed.publish()
    signed.put(MANIFEST, (signed.folder / MANIFEST).read_bytes().replace(JOB.encode(), b"mrg_02"))
    assert "not signed" in refused(signed.verify).message


@pytest.mark.parametrize(
    "signature",
    [b"", b"{", b"[]", b"null", b"{}", b'{"algorithm": "none", "signature": ""}',
     b'{"algorithm": "ed25519", "signature": 7}', b'{"algorithm": "ed25519", "signature": "***"}',
     json.dumps({"algorithm": "ed25519", "signature": base64.b64encode(b"short").decode()}).encode()],
)  # fmt: skip
def test_what_is_no_signature_is_refused(signed, signature):
    signed.publish()
    signed.put(f"{MANIFEST}.sig", signature)
    refused(signed.verify)


def test_an_unsigned_model_is_not_verified_and_takes_the_old_signature_away(signed):
    signed.publish()
    (signed.folder / f"{MANIFEST}.sig").unlink()
    signed.publish(signed=False, job="mrg_02")
    assert f"{MANIFEST}.sig" not in signed.api.list_repo_files(signed.repo)
    assert refused(signed.verify).names["file"] == f"{MANIFEST}.sig"


def test_keys_are_read_from_pem_and_others_are_refused(signed, tmp_path):
    private, public = signed.pem(tmp_path)
    assert key_id(read_private(private).public_key()) == key_id(read_public(public)) == key_id(signed.key)
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ))
    for path in (wrong, public):
        with pytest.raises(ValueError, match=r"Ed25519|no private key"):
            read_private(path)
    with pytest.raises(ValueError, match="no public key"):
        read_public(private)


def test_spear_verify_on_the_command_line(signed, tmp_path, local_hub):
    commit = signed.publish()
    _, public = signed.pem(tmp_path)
    (tmp_path / "token").write_text(signed.token)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPEAR_")} | {
        "SPEAR_HUB_ENDPOINT": local_hub.endpoint, "SPEAR_HUB_TOKEN_FILE": str(tmp_path / "token"),
    }
    command = [sys.executable, "-m", "app.cli", "verify", f"{signed.repo}@main", "--key", str(public)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    files = len(list(signed.folder.iterdir())) - 2
    told = f"verified: {signed.repo}@{commit}, {files} files of {JOB}, signed by key {key_id(signed.key)}\n"
    assert (run.returncode, run.stdout) == (0, told)
    signed.put("config.json", b"{}")
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "config.json" in run.stderr
