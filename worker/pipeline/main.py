"""The computing child's life: read the task, run it, say how it ended."""

import os
import sys
import traceback
from pathlib import Path

import torch

from app.errors import Code, SpearError
from worker.checkpoints.disk import FULL
from worker.evaluation.shortage import is_shortage
from worker.pipeline.run import run
from worker.pipeline.task import Reporter, Task


def main() -> None:
    """Run one task and say over the pipe how it ended; the exit status is 0 whenever that could be said."""
    _, _, task_file, descriptor = sys.argv
    with os.fdopen(int(descriptor), "wb") as pipe:
        reporter = Reporter(pipe)
        task = Task.model_validate_json(Path(task_file).read_bytes())
        torch.set_num_threads(task.threads)
        torch.set_grad_enabled(False)
        try:
            reporter.done(run(task, reporter))
        except SpearError as error:
            reporter.error(code=error.code, message=error.message, names=error.names)
        except OSError as error:
            if error.errno not in FULL:
                raise
            names = {"file": Path(error.filename).name} if error.filename else {}
            reporter.error(code=Code.DISK_FULL, message=f"the disk is full: {error.strerror}", names=names)
        except Exception as error:  # noqa: BLE001  (told to the supervisor, traced to the log)
            if is_shortage(error):
                said = str(error).partition("\n")[0]
                reporter.error(code=Code.OUT_OF_MEMORY, message=f"memory ran out: {said}", names={})
                return
            traceback.print_exc()
            reporter.error(code=Code.INTERNAL_ERROR, message=f"{type(error).__name__} in the pipeline", names={})
