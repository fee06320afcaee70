"""The base model's own reading, done once per loaded model and data: what every run on them starts from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from lsf.data.encode import EncodedExample
from lsf.jobs.phases import phase
from lsf.jobs.result import Metrics, Sample
from lsf.measure.loading import LoadedModel
from lsf.training.evaluation import answer, evaluate, spread_out
from lsf.training.forgetting import GeneralText, general_loss, sample_general_text

N_SAMPLES = 6
"""Test examples whose answers are kept."""


@dataclass(frozen=True)
class BaseReading:
    """What is known of the base model before a run."""

    metrics: Metrics
    """On the test rows and on its own text; those of the test rows are None where there are none."""
    samples: tuple[Sample, ...]
    """Its greedy answers to a few test rows."""
    text: GeneralText
    """Text it wrote itself."""


_READ: WeakKeyDictionary[Any, dict[object, BaseReading]] = WeakKeyDictionary()


def measure_base(
    loaded: LoadedModel, rows: tuple[EncodedExample, ...], batch_size: int, check: Callable[[], None]
) -> BaseReading:
    """Read the base model, or return its reading of the same rows: nobody changes a loaded model, so it still holds.

    Args:
        loaded: the base model.
        rows: test rows, encoded without end-of-text.
        batch_size: examples per forward pass.
        check: called before each batch; may raise to end the reading.
    """
    readings = _READ.setdefault(loaded.model, {})
    key = (rows, batch_size)
    if key not in readings:
        check()
        text = sample_general_text(loaded.model, loaded.tokenizer, loaded.context, loaded.info.dtype)
        metrics = measure(loaded.model, loaded.info.dtype, rows, batch_size, text, check)
        answers = answers_of(loaded.model, loaded, rows)
        samples = tuple(
            Sample(row.example.prompt, row.example.completion, given, None)
            for row, given in zip(sampled(rows), answers, strict=True)
        )
        readings.clear()
        readings[key] = BaseReading(metrics, samples, text)
    return readings[key]


def is_on_record(loaded: LoadedModel, rows: tuple[EncodedExample, ...], batch_size: int) -> bool:
    """Say whether the base model's reading of these rows is known already."""
    return (rows, batch_size) in _READ.get(loaded.model, {})


def measure(
    model: Any,
    dtype: str,
    rows: tuple[EncodedExample, ...],
    batch_size: int,
    text: GeneralText,
    check: Callable[[], None],
) -> Metrics:
    """Return one model's metrics on test rows and on general text; the same path before and after a run."""
    with phase("test"):
        metrics = evaluate(model, rows, batch_size, dtype, check) if rows else Metrics()
    with phase("forgetting"):
        return replace(metrics, general_loss=general_loss(model, text, dtype, check))


def sampled(rows: tuple[EncodedExample, ...]) -> list[EncodedExample]:
    """Return the few test rows whose answers are kept, the same in every run."""
    return [rows[index] for index in spread_out(len(rows), N_SAMPLES)]


def answers_of(model: Any, loaded: LoadedModel, rows: tuple[EncodedExample, ...]) -> list[str]:
    """Return a model's greedy answers to the sampled rows."""
    return [answer(model, loaded.tokenizer, row, loaded.context, loaded.info.dtype) for row in sampled(rows)]
