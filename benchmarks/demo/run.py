"""`make demo`. Run as a script or as `python -m benchmarks.demo.run`."""

import os
import signal
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)
os.environ["HF_HUB_DISABLE_XET"] = "1"  # the local Hub speaks plain LFS; huggingface_hub reads this when imported
os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))

from benchmarks.demo.journey import main  # noqa: E402  (after the environment is set)

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an ordinary way out, on which the service is stopped
    main()
