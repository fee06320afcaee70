"""The base model's own reading, done once per model, rows and settings: what every run on them starts from."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from lsf.data.encode import EncodedExample
from lsf.jobs.phases import phase
from lsf.jobs.result import Metrics, Sample
from lsf.jobs.spec import RunSpec
from lsf.measure.loading import LoadedModel
from lsf.measure.sharing import share_model
from lsf.training.caching import open_held_out
from lsf.training.evaluation import answer, evaluate, spread_out
from lsf.training.forgetting import BATCH_SIZE, GeneralText, general_loss, sample_general_text
from lsf.training.material import Material
from lsf.training.records import is_on_record, on_record, tokens_hash

N_SAMPLES = 6
"""Test examples whose answers are kept."""


@dataclass(frozen=True)
class BaseReading:
    """What is known of the base model before a run."""

    metrics: Metrics
    """On the test rows and on its own text; those of the test rows are None where there are none."""
    validation: Metrics
    """On the validation rows read during a run; all None where there are none."""
    samples: tuple[Sample, ...]
    """Its greedy answers to a few test rows."""
    text: GeneralText
    """Text it wrote itself."""


def measure_base(
    loaded: LoadedModel,
    spec: RunSpec,
    test: Sequence[EncodedExample],
    validation: Sequence[EncodedExample],
    check: Callable[[], None],
) -> BaseReading:
    """Return the base model's readings, from the record (lsf.training.records) where they are on it.

    What has to be read leaves the states below the run's lowest tuned block for its own readings of the same rows.

    Args:
        loaded: the base model.
        spec: of the run: batch size, and plan and cache for the states; the readings do not depend on those two.
        test: rows encoded without end-of-text.
        validation: rows read during the run.
        check: called before each batch and each token written; may raise to end the reading.
    """
    check()
    text, dtype = general_text(loaded, check), loaded.info.dtype

    def read() -> float:
        model = share_model(loaded.model)
        prefix = open_held_out(loaded, model, spec, text.rows, "text", BATCH_SIZE)
        return general_loss(model, text, dtype, check, prefix)

    lost = on_record(loaded, {**_own_text(loaded), "what": "general loss"}, read)
    metrics = replace(_on_rows(loaded, spec, test, "test", check), general_loss=lost)
    some = sampled(test)
    about = {**_own_text(loaded), "what": "answers", "rows": tokens_hash(some)}
    answers = on_record(loaded, about, lambda: answers_of(loaded.model, loaded, test, check))
    samples = tuple(
        Sample(row.example.prompt, row.example.completion, given, None)
        for row, given in zip(some, answers, strict=True)
    )
    return BaseReading(metrics, _on_rows(loaded, spec, validation, "validation", check), samples, text)


def knows_own_text(loaded: LoadedModel) -> bool:
    """Say whether the base model's own text and its loss on it are on record."""
    return is_on_record(loaded, {**_own_text(loaded), "what": "general loss"})


def knows_rows(loaded: LoadedModel, rows: Sequence[EncodedExample], batch_size: int) -> bool:
    """Say whether the base model's reading of some rows is on record."""
    return not rows or is_on_record(loaded, _about_rows(rows, batch_size))


def general_text(loaded: LoadedModel, check: Callable[[], None]) -> GeneralText:
    """Return text the base model wrote itself, sampled once per model; `check` is called before each token."""

    def sample() -> dict[str, Any]:
        text = sample_general_text(loaded.model, loaded.tokenizer, loaded.context, loaded.info.dtype, check=check)
        return {"ids": text.ids.tolist(), "lengths": text.lengths.tolist()}

    known = on_record(loaded, {**_own_text(loaded), "what": "general text"}, sample)
    return GeneralText(torch.tensor(known["ids"]), torch.tensor(known["lengths"]))


def _own_text(loaded: LoadedModel) -> dict[str, Any]:
    """Return what decides, beside the weights, where a text of the model's own begins and ends."""
    return {"begin": loaded.tokenizer.bos_token_id, "end": loaded.tokenizer.eos_token_id, "context": loaded.context}


def _on_rows(
    loaded: LoadedModel, spec: RunSpec, rows: Sequence[EncodedExample], split: str, check: Callable[[], None]
) -> Metrics:
    if not rows:
        return Metrics()

    def read() -> dict[str, Any]:
        model = share_model(loaded.model)
        prefix = open_held_out(loaded, model, spec, rows, split, spec.batch_size)
        return asdict(evaluate(model, rows, spec.batch_size, loaded.info.dtype, check, prefix))

    return Metrics(**on_record(loaded, _about_rows(rows, spec.batch_size), read))


def _about_rows(rows: Sequence[EncodedExample], batch_size: int) -> dict[str, Any]:
    return {"what": "rows", "rows": tokens_hash(rows), "batch_size": batch_size}


def measured_after(
    loaded: LoadedModel,
    model: Any,
    spec: RunSpec,
    material: Material,
    base: BaseReading,
    check: Callable[[], None],
) -> dict[str, Any]:
    """Return what a result holds of the tuned model's readings: `after` and `samples`, read as the base model's are.

    Args:
        loaded: the base model.
        model: the tuned one.
        spec: of the run.
        material: its rows.
        base: what was read before.
        check: called before each batch and each token written; may raise to end the reading.
    """
    dtype, batch, text = loaded.info.dtype, spec.batch_size, base.text
    after = Metrics()
    with phase("test"):
        if material.test:
            prefix = open_held_out(loaded, model, spec, material.test, "test", batch)
            after = evaluate(model, material.test, batch, dtype, check, prefix)
    with phase("forgetting"):
        prefix = open_held_out(loaded, model, spec, text.rows, "text", BATCH_SIZE)
        after = replace(after, general_loss=general_loss(model, text, dtype, check, prefix))
    with phase("answers"):
        answers = answers_of(model, loaded, material.test, check)
    samples = tuple(replace(old, after=new) for old, new in zip(base.samples, answers, strict=True))
    return {"after": after, "samples": samples}


def sampled(rows: Sequence[EncodedExample]) -> list[EncodedExample]:
    """Return the few test rows whose answers are kept, the same in every run."""
    return [rows[index] for index in spread_out(len(rows), N_SAMPLES)]


def answers_of(model: Any, loaded: LoadedModel, rows: Sequence[EncodedExample], check: Callable[[], None]) -> list[str]:
    """Return a model's greedy answers to the sampled rows; `check` is called before each token."""
    return [answer(model, loaded.tokenizer, row, loaded.context, loaded.info.dtype, check) for row in sampled(rows)]
