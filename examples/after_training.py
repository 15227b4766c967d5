"""After a fine-tune: have the new model repaired, and fail the pipeline where that failed.

    python after_training.py org/base org/finance-cpt org/finance-repaired --run 4711

Reads SPEAR_API_URL and SPEAR_API_KEY. Needs nothing but the client: pip install spear-merge
"""

import argparse
import os
import sys

import httpx2

from app.client import ApiError, Client, Job


def main() -> int:
    """The exit status: 0 if the repaired model is on the Hub."""
    parser = argparse.ArgumentParser(description="Have a fine-tuned model repaired.")
    for name in ("base", "adapted", "target"):
        parser.add_argument(name, help="org/name")
    parser.add_argument("--alpha", type=float, default=0.6, help="0 is the base, 1 the adapted model")
    parser.add_argument("--run", required=True, help="the training run: its repetition finds the same job again")
    given = parser.parse_args()
    recipe = {
        "base": {"repo": given.base}, "experts": [{"repo": given.adapted}], "target": {"repo": given.target},
        "method": {"name": "wise_ft", "alpha": given.alpha}, "labels": {"run": given.run},
    }  # fmt: skip
    try:
        with Client(os.environ["SPEAR_API_URL"], os.environ["SPEAR_API_KEY"]) as client:
            job = client.submit(recipe, idempotency_key=f"after-training-{given.run}")
            job = client.wait(job["id"], progress=tell)
    except ApiError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    except httpx2.TransportError as error:
        print(f"the service cannot be reached ({error}): run this again, it finds its job", file=sys.stderr)
        return 1
    print(job["result"]["url"] if job["result"] else f"{job['id']} {job['status']}: {job['error']}")
    return 0 if job["status"] == "succeeded" else 1


def tell(job: Job) -> None:
    """One line for the pipeline's log."""
    print(job["id"], job["status"], job["stage"] or "", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
