"""Where a sweep begins: at nothing, or at what an earlier one of the same model, data and settings measured."""

from dataclasses import replace

import torch

from lsf.data.task import Task
from lsf.environment import environment
from lsf.errors import BadInputError, DataError
from lsf.jobs.sweep import Sweep, SweepSpec, empty_cells
from lsf.jobs.sweep_plans import plans_over
from lsf.measure.identity import weights_hash
from lsf.measure.loading import LoadedModel


def start_sweep(loaded: LoadedModel, task: Task, spec: SweepSpec, earlier: Sweep | None = None) -> Sweep:
    """Return the sweep that is to be measured: an earlier one that is to go on, or an empty one.

    An earlier sweep keeps its plans and seeds, whatever is asked for beside them.

    Raises:
        BadInputError: the earlier one measured something else, or `over` is not understood.
        DataError: the task lacks the examples a sweep needs.
    """
    if not task.test:
        raise DataError(f"A sweep scores plans on test examples and {task.name} has none; give data with more rows.")
    if spec.learning_rate is None and not task.validation:
        raise DataError(f"A sweep searches rates on validation examples and {task.name} has none; give a rate.")
    n_blocks = loaded.info.n_blocks
    plans = plans_over(spec.over, n_blocks)
    weights, fingerprint = weights_hash(loaded.model), task.fingerprint
    gpu = torch.cuda.get_device_name(loaded.device) if loaded.device.type == "cuda" else None
    if earlier is None:
        cells = empty_cells(plans, n_blocks, spec.seeds)
        return Sweep(spec, n_blocks, weights, fingerprint, cells, {}, 0.0, environment(gpu))
    _check_same(earlier, spec, weights, fingerprint)
    over = ",".join(dict.fromkeys(",".join((earlier.spec.over, spec.over)).replace(" ", "").split(",")))
    spec = replace(spec, over=over, seeds=max(earlier.spec.seeds, spec.seeds))
    cells = empty_cells(plans_over(over, n_blocks), n_blocks, spec.seeds)
    known = {cell.key: cell for cell in earlier.cells if cell.after is not None}
    return replace(earlier, spec=spec, cells=tuple(known.get(cell.key, cell) for cell in cells))


def _check_same(earlier: Sweep, spec: SweepSpec, weights: str, fingerprint: str) -> None:
    """Refuse to go on with a sweep whose numbers would not be comparable; more plans and seeds are welcome."""
    free = {"over", "seeds"}
    for name, value in vars(spec).items():
        if name not in free and value != (old := getattr(earlier.spec, name)):
            raise BadInputError(f"The sweep in the file was made with {name} {old}, not {value}; take another --json.")
    for words, old, new in (("model's weights", earlier.weights, weights), ("data", earlier.fingerprint, fingerprint)):
        if old != new:
            raise BadInputError(f"The {words} changed since the sweep in the file was begun; take another --json.")
