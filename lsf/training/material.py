"""What a run reads: encoded training rows, the held-out rows of each reading, and the base model's own text."""

from collections.abc import Sequence
from dataclasses import dataclass

from lsf.data.encode import EncodedExample, Encoding, context_length, encode
from lsf.data.task import Example, Task
from lsf.errors import DataError
from lsf.jobs.spec import RunSpec
from lsf.measure.loading import LoadedModel
from lsf.training.batches import training_order
from lsf.training.evaluation import spread_out

SPARE = 2
"""A training split is encoded whole unless it has more than this many times the examples a run visits."""


@dataclass(frozen=True)
class Material:
    """The rows of a run; the same for every plan, method and rate on one model, task and seed."""

    train: tuple[EncodedExample, ...]
    """Rows to tune on, end-of-text appended."""
    validation: tuple[EncodedExample, ...]
    """Rows read during the run; empty where the task has none."""
    test: tuple[EncodedExample, ...]
    """Rows read before and after; empty where the task has none."""
    n_dropped: int
    """Training examples whose completion does not fit."""
    n_held_out_dropped: int
    """Validation and test examples, of those that the reading limits take, whose completion does not fit."""
    n_straddling: int
    """Examples in which a token straddles the border of prompt and completion."""
    steps: int
    """Optimizer steps: as asked, or as many as make the epochs asked for."""


def read_material(loaded: LoadedModel, task: Task, spec: RunSpec) -> Material:
    """Encode what a run reads.

    Where the training split is far larger than what the run visits, only a random part drawn by the seed is encoded.

    Args:
        loaded: the model, for its tokenizer and context.
        task: the data.
        spec: steps or epochs, batch size, length and reading limits, seed.

    Raises:
        DataError: an example without tokens, or none fits.
    """
    length = context_length(loaded.context, spec.max_length)
    examples: Sequence[Example] = task.train
    visits = spec.steps * spec.batch_size
    if spec.epochs is None and len(examples) > SPARE * visits:
        chosen = sorted(training_order(len(examples), SPARE * visits, spec.seed).tolist())
        examples = [examples[index] for index in chosen]
    train = encode(loaded.tokenizer, examples, length, append_eos=True)
    steps = spec.steps if spec.epochs is None else max(1, round(spec.epochs * len(train.rows) / spec.batch_size))
    validation, test = (_held_out(loaded, part, length, spec.eval_limit) for part in (task.validation, task.test))
    return Material(
        train=train.rows,
        validation=validation.rows,
        test=test.rows,
        n_dropped=train.n_dropped,
        n_straddling=train.n_straddling + validation.n_straddling + test.n_straddling,
        n_held_out_dropped=validation.n_dropped + test.n_dropped,
        steps=steps,
    )


def _held_out(loaded: LoadedModel, examples: Sequence[Example], length: int, limit: int) -> Encoding:
    if not examples:
        return Encoding((), 0)
    try:
        return encode(loaded.tokenizer, [examples[i] for i in spread_out(len(examples), limit)], length)
    except DataError as error:
        raise DataError(f"The held-out examples cannot be read: {error}") from None
