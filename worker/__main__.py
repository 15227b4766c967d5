"""`python -m worker`: the Celery worker."""

import argparse
import os
import sys

from app import cores
from app.hub.signatures import read_private
from app.logs import configure
from app.settings import load
from worker.tasks import make_worker


def main() -> None:
    """Serve jobs until told to stop: SIGTERM hands the running job back, with what it has done so far."""
    parser = argparse.ArgumentParser(prog="spear-worker")
    parser.add_argument("--name", default="spear-worker", help="the name under which the broker knows this worker")
    name = parser.parse_args().name
    _silence()
    cores.forbid()  # children inherit the limit
    settings = load()
    configure(settings.log_level)
    if settings.signing_key_file:
        read_private(settings.signing_key_file)  # a key that cannot be used is told now, not after the first merge
    make_worker(settings, name=name).worker_main([
        "--quiet", "worker", "--hostname", f"{name}@%h", "--loglevel", settings.log_level, "--without-gossip",
        "--without-mingle",
    ])  # fmt: skip


def _silence() -> None:
    """Nothing of ours goes to standard output; Celery's farewell would stand between the lines of JSON."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    main()
