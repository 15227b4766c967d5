"""The computing child: `python -m worker.pipeline spear-worker-child TASK.json FD`."""

from worker.isolation import leave_network
from worker.processor import name_kernels

leave_network()  # before torch is imported, while there is one thread
name_kernels()

from worker.pipeline.main import main  # noqa: E402

main()
