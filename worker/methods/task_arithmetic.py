"""Task arithmetic. Source: Ilharco et al. (arXiv 2212.04089)."""

from worker.methods.task_vectors import TaskVectorMethod


class TaskArithmetic(TaskVectorMethod):
    """`base + λ · Σ wᵢδᵢ`, over `Σ wᵢ` with `normalize`."""

    name = "task_arithmetic"
