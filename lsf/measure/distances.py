"""How far every example's last state is from its target, one number each."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lsf.data.encode import EncodedExample
from lsf.measure.anatomy import Anatomy
from lsf.measure.batches import MOST_PADDING, make_batches
from lsf.measure.offload import input_device
from lsf.measure.probe import Wanted, stream_readings
from lsf.measure.semantics import semantic_bases


def target_distances(anatomy: Anatomy, rows: Sequence[EncodedExample], batch_size: int = 16) -> Float[np.ndarray, " n"]:
    """Return 1 - cos(f_L, s_y) at each example's first completion token: the target deviation of the last state.

    Args:
        anatomy: of the model; unchanged.
        rows: encoded examples.
        batch_size: examples per forward pass.
    """
    batches = make_batches(rows, "first", batch_size, 0, input_device(anatomy.model), MOST_PADDING)
    found = np.full(len(rows), np.nan, np.float32)
    bases = semantic_bases(anatomy.head_weight)
    for read in stream_readings(anatomy, bases, batches, Wanted()):
        found[read.examples] = 1.0 - np.clip(read.to_target[:, -1], -1.0, 1.0)
    return found
