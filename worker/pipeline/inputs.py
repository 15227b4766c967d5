"""A task's models, open for reading: adapters applied, rows matched by token where the recipe asks for it."""

from contextlib import ExitStack

from worker.checkpoints.reader import Checkpoint
from worker.checkpoints.vocabulary import open_models
from worker.pipeline.task import Task


def open_inputs(task: Task, stack: ExitStack) -> list[Checkpoint]:
    """The base and the experts, in order; `stack` closes them. Raises `SpearError` as `open_models` does."""
    named = [(entry.repo, entry.path) for entry in task.inputs]
    models = open_models(named, vocabulary=task.merging.tokenizer_input)
    for model in models:
        stack.callback(model.close)
    return models
