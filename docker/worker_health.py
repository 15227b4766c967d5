"""Health of the worker in this container: it must answer over the broker, which a process that only exists does not."""  # noqa: INP001  (a script)

import socket
import sys

from app.queue.broker import make_celery
from app.settings import load


def main() -> int:
    """Exit status 0 if a worker of this host answers a ping; a busy one does too."""
    replies = make_celery(load()).control.ping(timeout=4)
    here = f"@{socket.gethostname()}"
    return 0 if any(name.endswith(here) for reply in replies for name in reply) else 1


if __name__ == "__main__":
    sys.exit(main())
