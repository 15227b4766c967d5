"""No core files: one of a process that holds tokens would hold them too."""

import ctypes
import resource

_PR_SET_DUMPABLE = 4


def forbid() -> None:
    """From now on neither this process nor what it forks leaves a core file; what it executes may not write one.

    Linux: the limit on core files alone is not asked where they are piped to a program (core(5)), so the process is
    made undumpable as well (prctl(2), PR_SET_DUMPABLE), which also keeps other processes of the user from its memory.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
