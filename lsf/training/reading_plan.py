"""How often a run reads its validation rows: planned by counting, so that a spec always reads at the same steps."""

from collections.abc import Sequence

from lsf.analysis.cost import law_flops
from lsf.data.encode import EncodedExample
from lsf.jobs.spec import RunSpec
from lsf.measure.loading import LoadedModel
from lsf.measure.quantised import n_values
from lsf.training.caching import blocks_of, prefix_depth
from lsf.training.evaluation import spread_out
from lsf.training.material import Material

LIVE_ROWS = 64
"""Validation examples of a reading at most."""
SHARE = 0.1
"""Operations that all readings may take, of those of the steps."""
READINGS = 2, 10
"""Fewest and most readings, besides the one before the first step."""


def watched(rows: Sequence[EncodedExample]) -> tuple[EncodedExample, ...]:
    """Return the validation rows that are read during a run, the same in every run."""
    return tuple(rows[index] for index in spread_out(len(rows), LIVE_ROWS))


def reading_interval(loaded: LoadedModel, spec: RunSpec, material: Material) -> int:
    """Return the steps between two validation readings: as asked, else so many that they keep to their share.

    Only what lies above the frozen prefix is counted, on both sides: its states are kept, or computed by both.

    Args:
        loaded: the base model.
        spec: plan and batch size; its `eval_every` goes before all else.
        material: rows and steps.
    """
    if spec.eval_every is not None or not material.validation:
        return spec.eval_every or material.steps
    low, high = READINGS
    share = SHARE * material.steps * _step_flops(loaded, spec, material) / _reading_flops(loaded, spec, material)
    return max(1, material.steps // min(high, max(low, int(share))))


def _step_flops(loaded: LoadedModel, spec: RunSpec, material: Material) -> float:
    """Return the operations of one step: forward, backward and weight gradients, the head at targets alone."""
    tokens, scored = _means(material.train)
    above, head = _above(loaded, spec), 2.0 * loaded.info.width * loaded.info.vocab_size
    own = sum(above[block - loaded.info.n_blocks] for block in spec.plan.blocks)
    attention = 2.0 * loaded.info.width * tokens
    per_token = law_flops(above, 0.0, attention, 0, 2.0 * own)
    return spec.batch_size * (tokens * per_token + scored * (2 + spec.plan.head) * head)


def _reading_flops(loaded: LoadedModel, spec: RunSpec, material: Material) -> float:
    """Return the operations of one reading: forward alone."""
    rows = watched(material.validation)
    tokens, scored = _means(rows)
    forward = sum(2.0 * (count + loaded.info.width * tokens) for count in _above(loaded, spec))
    return len(rows) * (tokens * forward + scored * 2.0 * loaded.info.width * loaded.info.vocab_size)


def _above(loaded: LoadedModel, spec: RunSpec) -> list[int]:
    """Return the parameters of the blocks from the lowest tuned one up."""
    blocks = blocks_of(loaded.model, loaded)[prefix_depth(spec.plan, loaded.info.tied_head) :]
    return [sum(n_values(value) for value in block.parameters()) for block in blocks]


def _means(rows: Sequence[EncodedExample]) -> tuple[float, float]:
    """Return tokens, and predictions that count, per row."""
    return sum(len(row.ids) for row in rows) / len(rows), sum(len(row.ids) - row.n_prompt for row in rows) / len(rows)
