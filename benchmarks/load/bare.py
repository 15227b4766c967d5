"""The other side of the comparison: a FastAPI route that does nothing, as large as one of our jobs."""

from typing import Any

from fastapi import FastAPI

from benchmarks.load.rows import RECIPE

app = FastAPI()


@app.get("/bare/{name}")
async def bare(name: str) -> dict[str, Any]:
    return {"id": name, "status": "succeeded", "recipe": RECIPE}
