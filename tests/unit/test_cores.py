"""No core file of a process that holds tokens: not of it, not of what it forks, not of what it executes."""

import subprocess
import sys

CODE = """
import ctypes, os, resource, subprocess, sys
from app import cores
cores.forbid()
def look():
    return resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
assert look() == ((0, 0), 0), look()
child = os.fork()
if not child:
    os._exit(0 if look() == ((0, 0), 0) else 1)
assert os.waitpid(child, 0)[1] == 0
say = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
assert subprocess.check_output([sys.executable, "-c", say]).strip() == b"(0, 0)"
os.abort()
"""


def test_a_process_that_holds_tokens_leaves_no_core(tmp_path):
    run = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == -6, run.stderr
    assert list(tmp_path.iterdir()) == []
