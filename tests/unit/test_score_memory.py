"""Memory of scoring: at most four times the largest matrix in fp32."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_score_stage import write

SIZE = 2048
FP32 = 4 * SIZE * SIZE
MOST = 4
SCORING = """
import json, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import torch
torch.set_num_threads(1)
from test_score_stage import make_task, run
def status(key):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
pair = Path(sys.argv[3]), Path(sys.argv[4])
small, large = ([root / side for side in ("base", "adapted")] for root in pair)
run(make_task(*small, pair[0]))  # libraries load and threads start before anything is measured
Path("/proc/self/clear_refs").write_text("5")
idle = status("VmHWM")
outcome, messages = run(make_task(*large, pair[1]))
grades = sorted({m["record"]["precision"] for m in messages if m["kind"] == "spectrum"})
print(json.dumps({"growth": status("VmHWM") - idle, "grades": grades, "rows": len(outcome.rows)}))
"""


def pair_of(root: Path, *, shape: tuple[int, int], dtype: torch.dtype, strong: float) -> Path:
    generator = torch.Generator().manual_seed(0)
    name = "model.layers.0.self_attn.q_proj.weight"
    left, right = torch.randn(shape[0], 1, generator=generator), torch.randn(1, shape[1], generator=generator)
    base = 0.02 * (torch.randn(shape, generator=generator) + strong * left @ right)
    root.mkdir()
    write(root / "base", {name: base.to(dtype)})
    change = 0.001 * torch.randn(shape, generator=generator)
    write(root / "adapted", {name: (base + change).to(dtype)})
    return root


@pytest.mark.parametrize(
    ("shape", "dtype", "strong", "grades"),
    [
        ((SIZE, SIZE), torch.bfloat16, 0.0, ["single"]),
        ((SIZE, SIZE), torch.float32, 0.0, ["single"]),
        ((SIZE, SIZE), torch.float32, 30.0, ["exact", "single"]),
        ((SIZE // 2, 2 * SIZE), torch.float32, 30.0, ["exact", "single"]),
    ],
)
def test_a_process_grows_by_a_few_matrices_only(
    tmp_path: Path, shape: tuple[int, int], dtype: torch.dtype, strong: float, grades: list[str]
) -> None:
    small = pair_of(tmp_path / "small", shape=(512, 512), dtype=dtype, strong=strong)  # loads the loops of pairs
    large = pair_of(tmp_path / "large", shape=shape, dtype=dtype, strong=strong)
    here = Path(__file__).parent
    argv = [sys.executable, "-c", SCORING, str(here), str(here.parent.parent), str(small), str(large)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    print(f"{told['growth'] / FP32:.2f} times the matrix")
    assert (told["rows"], told["grades"]) == (1, grades)
    assert told["growth"] <= MOST * FP32, f"{told['growth'] / FP32:.2f} times the matrix"
