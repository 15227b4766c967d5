"""`python -m app.local.hub --root DIR`: serve on 127.0.0.1 and say where, in one line of JSON on stdout."""

import argparse
import json
import socket
import sys
from pathlib import Path

import uvicorn

from app.local.hub.faults import Faults
from app.local.hub.server import Options, create_hub
from app.local.hub.store import HubStore
from app.local.hub.strikes import Protocol


class Server(uvicorn.Server):
    """Says the endpoint once connections are accepted."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        sys.stdout.write(json.dumps({"endpoint": f"http://{host}:{port}"}) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    arguments = _arguments()
    store = HubStore(arguments.root)
    options = Options(
        page_size=arguments.page_size, multipart_bytes=arguments.multipart_bytes, part_bytes=arguments.part_bytes
    )
    app = create_hub(store, options=options)
    config = uvicorn.Config(
        Faults(app, store=store) if arguments.faults else app,
        host="127.0.0.1", port=arguments.port, http=Protocol, ws="none", log_level="warning", access_log=False,
        # a client's pooled connection must not close under a commit, which it never sends twice
        timeout_keep_alive=300, timeout_graceful_shutdown=2, proxy_headers=False, server_header=False,
    )  # fmt: skip
    listener = config.bind_socket()
    # asyncio does so for sockets of its own making only; without, every reply waits 40 ms for an acknowledgement
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    Server(config).run(sockets=[listener])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.local.hub", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the directory that holds everything")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--faults", action="store_true", help="offer /_faults and /_requests, for tests")
    parser.add_argument("--page-size", type=int, default=Options.page_size)
    parser.add_argument("--multipart-bytes", type=int, default=Options.multipart_bytes)
    parser.add_argument("--part-bytes", type=int, default=Options.part_bytes)
    return parser.parse_args()


if __name__ == "__main__":
    main()
