"""The folder of compiled code bears the digest of every source that is compiled."""

from pathlib import Path

import worker
from worker.child import COMPILED

HOME = Path(worker.__file__).parent


def test_every_compiled_module_counts() -> None:
    """One left out would be found in the old version's folder after an upgrade."""
    counted = {file for pattern in COMPILED for file in HOME.glob(pattern)}
    compiled = {file for file in HOME.rglob("*.py") if "from worker.compiled import" in file.read_text()}
    assert len(compiled) >= 4
    assert compiled | {HOME / "compiled.py"} <= counted
