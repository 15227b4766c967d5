"""`.ci/run` as the build server calls it, on a Makefile of this test's own: what it runs, how it ends."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / ".ci" / "run"
CLOSING = "===== 3 passed, 1 skipped in 1.25s ====="
MAKEFILE = """
check:
	@echo checked; exit $(CHECK)
test:
	@echo '$(CLOSING)'; exit $(TEST)
docs:
	@echo documented; exit $(DOCS)
test-browser:
	@echo 'browsed by $(CHROMIUM)'; echo '2 passed in 9.99s'; exit $(BROWSE)
.docs/.installed .venv/.browser-installed:
	@exit $(INSTALL)
"""


def run(folder, *, chromium: str = "sh", minutes: str = "30", **fails: str) -> tuple[int, list[str]]:
    (folder / ".ci").mkdir(exist_ok=True)
    shutil.copy(RUN, folder / ".ci" / "run")
    (folder / "Makefile").write_text(MAKEFILE)
    codes = dict.fromkeys(("CHECK", "TEST", "DOCS", "BROWSE", "INSTALL"), "0") | fails
    env = {"PATH": os.environ["PATH"], "CLOSING": CLOSING, "CI_MINUTES": minutes, "CHROMIUM": chromium, **codes}
    done = subprocess.run([folder / ".ci" / "run"], env=env, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout.splitlines()


def test_all_is_run_and_the_last_line_is_that_of_the_tests(tmp_path):
    code, lines = run(tmp_path)
    assert code == 0
    assert lines[-1] == CLOSING
    assert {"checked", "documented", f"browsed by {shutil.which('sh')}"} <= set(lines)


@pytest.mark.parametrize(
    ("part", "target"), [("CHECK", "check"), ("TEST", ""), ("DOCS", "docs"), ("BROWSE", "test-browser")]
)
def test_any_failure_fails_and_is_named(tmp_path, part, target):
    code, lines = run(tmp_path, **{part: "1"})
    assert code != 0
    assert lines[-1] == CLOSING
    assert "documented" in lines
    if target:
        assert f"make {target} (2) failed" in lines


def test_what_cannot_be_had_is_left_out_and_said(tmp_path):
    code, lines = run(tmp_path, INSTALL="1")
    assert code == 0
    assert [line for line in lines if "cannot be installed" in line] == [
        f"make {target} left out: its tools cannot be installed here" for target in ("docs", "test-browser")
    ]
    code, lines = run(tmp_path, minutes="0")
    assert code == 0
    assert sum("time does not suffice" in line for line in lines) == 2
    assert lines[-1] == CLOSING
