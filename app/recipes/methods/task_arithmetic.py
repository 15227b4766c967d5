"""Task arithmetic."""

from typing import Literal

from app.recipes.methods.base import Compatible, TaskVectors


class TaskArithmeticParameters(TaskVectors, Compatible):
    """base + lambda · Σ weight · (expert - base). Source: Ilharco et al. (arXiv 2212.04089)."""

    name: Literal["task_arithmetic"] = "task_arithmetic"
