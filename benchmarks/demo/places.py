"""Where the demo keeps what it makes: one git-ignored folder, safe to delete."""

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

HOME = Path(__file__).resolve().parents[2] / ".demo"
BASE, ADAPTED, RESTORED = HOME / "base", HOME / "adapted", HOME / "restored"


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made by `make` unless an earlier run has finished it: a broken run leaves nothing under its name."""
    if not folder.exists():
        draft = folder.with_name(folder.name + ".part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        make(draft)
        draft.rename(folder)
    return folder


def package_folder(name: str) -> Path:
    """The folder of an installed package, found without importing it (and what it would import)."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name} is missing: pip install --no-deps -r benchmarks/demo/requirements.lock")
    return Path(next(iter(spec.submodule_search_locations)))
