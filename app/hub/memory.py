"""What the arithmetic on one tensor takes at the most beside the stream's buffers: an estimate for the plan. Pure."""

from app.hub.headers import DTYPE_BITS, TensorInfo
from app.hub.heads import HEADS
from app.hub.tokenrows import EMBEDDINGS
from app.recipes import AnyRecipe, Measuring, Recipe, Scoring, Study
from app.recipes.methods.base import numbers

BLOCK_BYTES = 96_000_000
"""What DG-Hard holds of a wide matrix."""


EVALUATOR_BYTES = 1_200_000_000
"""lm-eval, transformers and their libraries."""


def loaded(parameters: int) -> int:
    """A model in float32, as it is evaluated on a processor, with the libraries; activations come on top."""
    return EVALUATOR_BYTES + 4 * parameters


def working_set(tensor: TensorInfo, recipe: AnyRecipe) -> int:
    """Bytes for one tensor; 0 where it is streamed in chunks, as it is by all methods but those below."""
    if isinstance(recipe, Measuring | Study):
        return 0
    if isinstance(recipe, Scoring) or recipe.method.method_name() == "spear":
        return _scored(tensor)
    if recipe.method.method_name() == "dg_hard":
        return _filtered(tensor, least=getattr(recipe.method, "min_elements", 0))
    return _whole(tensor, experts=len(recipe.experts)) if _needs_whole(recipe) else 0


def _scored(tensor: TensorInfo) -> int:
    """A projection matrix (m, n): base, adapted and their difference in fp32, and three fp64 matrices of the short
    side's Gram product and its eigensolver."""
    if len(tensor.shape) != 2 or tensor.name.endswith((*EMBEDDINGS, *HEADS)):
        return 0
    return 3 * 4 * tensor.elements + 3 * 8 * min(tensor.shape) ** 2


def _filtered(tensor: TensorInfo, *, least: int) -> int:
    """DG-Hard: the Gram matrix and its eigensolver in fp64; of a wide matrix a block, and two thin factors in fp32 that
    have less than half as many rows as its short side."""
    if len(tensor.shape) != 2 or tensor.elements < least:
        return 0
    short, wide = min(tensor.shape), tensor.shape[0] < tensor.shape[1]
    block = min(BLOCK_BYTES, 8 * tensor.elements) if wide else 0
    return 4 * 8 * short**2 + block + 4 * short // 2 * sum(tensor.shape)


def _needs_whole(recipe: Recipe) -> bool:
    """Compat mode with a density below 1: mergekit's unstable sort and its sums over the whole tensor."""
    if not getattr(recipe.method, "compat", None):
        return False
    densities = (getattr(recipe.method, "density", None), *(expert.density for expert in recipe.experts))
    return any(number < 1 for setting in densities if setting is not None for number in numbers(setting))


def _whole(tensor: TensorInfo, *, experts: int) -> int:
    """Every model as stored, task vectors twice, mask and result in fp32, and a sort's 32 bytes per element."""
    stored = DTYPE_BITS[tensor.dtype] // 8
    return tensor.elements * ((experts + 1) * stored + 4 * (2 * experts + 3) + 32)
