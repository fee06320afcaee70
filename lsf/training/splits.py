"""What a run reads: encoded training rows, held-out rows and how often, and the base model's own readings."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from lsf.data.encode import EncodedExample, Encoding, context_length, encode
from lsf.data.report import Floor, Prior, completion_ids, floor_of, labels_of, prior_of, unknown_targets
from lsf.data.task import Example, Task
from lsf.errors import BadInputError, DataError
from lsf.models.batches import training_order
from lsf.models.loading import LoadedModel, check_ids
from lsf.models.quantised import n_values
from lsf.models.sharing import share_model
from lsf.models.writing import GeneralText, sample_general_text
from lsf.plans.cost import law_flops
from lsf.runs.result import Metrics, Sample, phase
from lsf.runs.spec import RunSpec, flat_interval
from lsf.training.caching import blocks_of, is_on_record, on_record, open_held_out, prefix_depth, tokens_hash
from lsf.training.evaluation import (
    BATCH_SIZE,
    NOTHING,
    Asked,
    answers_of,
    asked_for,
    evaluate,
    general_loss,
    sampled,
    spread_out,
    unheard,
    with_match,
    write_answers,
)
from lsf.training.processes import n_processes
from lsf.wording import counted

SPARE = 2
"""A training split is encoded whole unless it has more than this many times the examples a run visits."""


@dataclass(frozen=True)
class EncodedSplits:
    """The rows of a run; the same for every plan, method and rate on one model, task and seed."""

    train: tuple[EncodedExample, ...]
    """Rows to tune on, end-of-text appended; general data last."""
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
    n_cut: int = 0
    """Training rows that lost tokens at their beginning."""
    rendering: str = "raw"
    """How the texts of the training rows were made."""
    facts: tuple[str, ...] = ()
    """Sentences on rows that were cut or left out, and on what the chat template did to training rows."""
    n_general: int = 0
    """How many of the training rows, the last ones, are general data."""
    n_general_dropped: int = 0
    """General rows whose completion does not fit, of those that were looked at."""
    asked: Asked = NOTHING
    """What answers are generated to."""

    @property
    def own(self) -> tuple[EncodedExample, ...]:
        """The training rows of the data itself."""
        return self.train[: len(self.train) - self.n_general]


def encode_splits(loaded: LoadedModel, task: Task, spec: RunSpec) -> EncodedSplits:
    """Encode what a run reads.

    Where the training split is far larger than what the run visits, only a random part drawn by the seed is encoded.

    Args:
        loaded: the model, for its tokenizer and context.
        task: the data.
        spec: steps or epochs, batch size, length and reading limits, seed.

    Raises:
        DataError: an example without tokens, or none fits; no general data; no answer by the pattern.
    """
    length = context_length(loaded.context, spec.max_length)
    examples: Sequence[Example] = task.train
    enough = SPARE * spec.steps * spec.batch_size
    if spec.epochs is None and len(examples) > enough:
        examples = [examples[index] for index in sorted(training_order(len(examples), enough, spec.seed).tolist())]
    train = encode(loaded.tokenizer, examples, length, append_eos=True)
    steps = _steps(spec, len(train.rows))
    validation, test = (_held_out(loaded, part, length, spec.eval_limit) for part in (task.validation, task.test))
    general = Encoding((), 0) if spec.general is None else _general(loaded, task, spec, length, steps)
    asked = asked_for(loaded.tokenizer, spec, test.rows)
    check_ids(loaded, (*train.rows, *general.rows, *validation.rows, *test.rows))
    return EncodedSplits(
        train=train.rows + general.rows,
        validation=validation.rows,
        test=test.rows,
        n_dropped=train.n_dropped,
        n_straddling=train.n_straddling + validation.n_straddling + test.n_straddling,
        n_held_out_dropped=validation.n_dropped + test.n_dropped,
        steps=steps,
        n_cut=train.n_cut,
        rendering=train.rendering,
        facts=(
            *_cut_off(train, "training", length),
            *_cut_off(Encoding((), validation.n_dropped + test.n_dropped), "validation and test", length),
            *_cut_off(general, "general", length),
            *filter(None, [unknown_targets(loaded.tokenizer, train.rows)]),
            *train.facts,
            *(f"General data: {fact}" for fact in general.told if fact.words not in {one.words for one in train.told}),
            *asked.facts,
        ),
        n_general=len(general.rows),
        n_general_dropped=general.n_dropped,
        asked=asked,
    )


def floor_on(splits: EncodedSplits, base: Metrics, vocabulary: int, train: Sequence[Example]) -> Floor | None:
    """Return the floor on the test rows; None where there are none. `base`: the base model's metrics on them."""
    if base.loss is None or base.exact_match is None:
        return None
    return floor_of(prior_on(splits, vocabulary, train), base.loss, base.exact_match)


def prior_on(splits: EncodedSplits, vocabulary: int, train: Sequence[Example]) -> Prior:
    """Return the best answer to the test rows, at least one, that ignores the prompt.

    Args:
        splits: rows; the training rows that fit make the prior, of a large split the labels in it.
        vocabulary: V.
        train: the training split, all of it.
    """
    texts = labels_of(train, splits.test) if len(train) > len(splits.own) + splits.n_dropped else None
    return prior_of(completion_ids(splits.own), completion_ids(splits.test), vocabulary, texts)


def refuse_without_readings(spec: RunSpec, splits: EncodedSplits) -> None:
    """Refuse what goes by validation readings where none can be made, or where processes could disagree on them.

    Raises:
        DataError: the task has no validation examples.
        BadInputError: several processes share the run.
    """
    asked = [
        words for words, given in (("until flat", spec.until == "flat"), ("keep best", spec.keep == "best")) if given
    ]
    if asked and not splits.validation:
        raise DataError(f"{asked[0]} needs validation examples and the data has none; leave it out.")
    if asked and n_processes() > 1:
        raise BadInputError(f"{asked[0]} is not possible in several processes; leave it out.")


def refuse_long_warmup(spec: RunSpec, splits: EncodedSplits) -> None:
    """Refuse a warm-up that leaves no step of a run at its rate.

    Raises:
        BadInputError: it is as long as the run.
    """
    if spec.warmup_steps >= splits.steps:
        raise BadInputError(
            f"warmup_steps is {spec.warmup_steps} and the run has {counted(splits.steps, 'step')}; it must be less, "
            "else no step has the learning rate that was asked for."
        )


def _cut_off(encoding: Encoding, which: str, length: int) -> list[str]:
    """Return a sentence each on rows that were left out and that lost tokens, since they are too long, if there are."""
    left, cut, row = encoding.n_dropped, encoding.n_cut, f"{which} row"
    said = [f"{counted(left, row)} left out, whose target does not fit into {length:,} tokens."] if left else []
    return said + ([f"{counted(cut, row)} cut at the beginning, to fit into {length:,} tokens."] if cut else [])


def _steps(spec: RunSpec, n_rows: int) -> int:
    """Return the optimizer steps of a run: as asked, or the fewest that make the epochs asked for of its own rows."""
    if spec.epochs is None:
        return spec.steps
    wanted = math.ceil(spec.epochs * n_rows - 1e-6)  # 0.1 * 30 is a little more than 3, and asks for no row more
    if spec.general is None:
        return max(1, math.ceil(wanted / spec.batch_size))
    steps = max(1, int(wanted / (spec.batch_size * (1.0 - spec.general_share))) - 1)  # at most two too few
    while steps * spec.batch_size - _general_visits(spec, steps) < wanted:
        steps += 1
    return steps


def _general_visits(spec: RunSpec, steps: int) -> int:
    """Return how many of the rows of so many steps are general ones, as `training_order` mixes them in."""
    return int(spec.general_share * steps * spec.batch_size + 0.5)


def _general(loaded: LoadedModel, task: Task, spec: RunSpec, length: int, steps: int) -> Encoding:
    """Return the general rows that a run draws from: random ones, no more than it visits."""
    visits = _general_visits(spec, steps)
    if not task.general or not visits:
        asked = f"{counted(steps, 'step')} of {counted(spec.batch_size, 'row')}"
        lacks = f"{asked} {'has' if steps == 1 else 'have'} no room for a share of {spec.general_share:g}"
        raise DataError(f"No general data of {spec.general} can be mixed in: {lacks if task.general else 'no row'}.")
    chosen = training_order(len(task.general), min(len(task.general), SPARE * visits), spec.seed).tolist()
    try:
        found = encode(loaded.tokenizer, [task.general[index] for index in chosen], length, append_eos=True)
    except DataError as error:
        raise DataError(f"The general data cannot be read: {error}") from None
    return replace(found, rows=found.rows[:visits])


def read_test_rows(loaded: LoadedModel, task: Task, spec: RunSpec) -> tuple[EncodedExample, ...]:
    """Return the test rows that a run reads; empty where the task has none."""
    rows = _held_out(loaded, task.test, context_length(loaded.context, spec.max_length), spec.eval_limit).rows
    check_ids(loaded, rows)
    return rows


def _held_out(loaded: LoadedModel, examples: Sequence[Example], length: int, limit: int) -> Encoding:
    if not examples:
        return Encoding((), 0)
    try:
        return encode(loaded.tokenizer, [examples[i] for i in spread_out(len(examples), limit)], length)
    except DataError as error:
        raise DataError(f"The held-out examples cannot be read: {error}") from None


LIVE_ROWS = 64
"""Validation examples of a reading at most."""
SHARE = 0.1
"""Operations that all readings may take, of those of the steps."""
READINGS = 2, 10
"""Fewest and most readings, besides the one before the first step."""


def watched(rows: Sequence[EncodedExample]) -> tuple[EncodedExample, ...]:
    """Return the validation rows that are read during a run, the same in every run."""
    return tuple(rows[index] for index in spread_out(len(rows), LIVE_ROWS))


def reading_interval(loaded: LoadedModel, spec: RunSpec, splits: EncodedSplits) -> int:
    """Return the steps between two validation readings: as asked, else so many that they keep to their share.

    A run that goes by its readings has them at the same steps whatever is tuned, so that every plan gets as many tries.
    Only what lies above the frozen prefix is counted, on both sides: its states are kept, or computed by both.

    Args:
        loaded: the base model.
        spec: plan and batch size; its `eval_every` goes before all else.
        splits: rows and steps.
    """
    if spec.eval_every is not None or not splits.validation:
        return spec.eval_every or splits.steps
    low, high = READINGS
    if spec.goes_by_readings:
        return flat_interval(spec, splits.steps) if spec.until == "flat" else max(1, splits.steps // high)
    share = SHARE * splits.steps * _step_flops(loaded, spec, splits) / _reading_flops(loaded, spec, splits)
    return max(1, splits.steps // min(high, max(low, int(share))))


def _step_flops(loaded: LoadedModel, spec: RunSpec, splits: EncodedSplits) -> float:
    """Return the operations of one step: forward, backward and weight gradients, the head at targets alone."""
    tokens, scored = _means(splits.own)
    above, head = _above(loaded, spec), 2.0 * loaded.info.width * loaded.info.vocab_size
    own = sum(above[block - loaded.info.n_blocks] for block in spec.plan.blocks)
    attention = 2.0 * loaded.info.width * tokens
    per_token = law_flops(above, 0.0, attention, 0, 2.0 * own)
    return spec.batch_size * (tokens * per_token + scored * (2 + spec.plan.head) * head)


def _reading_flops(loaded: LoadedModel, spec: RunSpec, splits: EncodedSplits) -> float:
    """Return the operations of one reading: forward alone."""
    rows = watched(splits.validation)
    tokens, scored = _means(rows)
    forward = sum(2.0 * (count + loaded.info.width * tokens) for count in _above(loaded, spec))
    return len(rows) * (tokens * forward + scored * 2.0 * loaded.info.width * loaded.info.vocab_size)


def _above(loaded: LoadedModel, spec: RunSpec) -> list[int]:
    """Return the parameters of the blocks from the lowest tuned one up."""
    blocks = blocks_of(loaded.model, loaded)[prefix_depth(spec.plan, loaded.info.tied_head) :]
    return [sum(n_values(value) for value in block.parameters()) for block in blocks]


def _means(rows: Sequence[EncodedExample]) -> tuple[float, float]:
    """Return tokens, and predictions that count, per row."""
    return sum(len(row.ids) for row in rows) / len(rows), sum(row.n_targets for row in rows) / len(rows)


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
    asked: Asked = NOTHING,
) -> BaseReading:
    """Return the base model's readings, from the record (lsf.training.caching) where they are on it.

    What has to be read leaves the states below the run's lowest tuned block for its own readings of the same rows.

    Args:
        loaded: the base model.
        spec: of the run: batch size, and plan and cache for the states; the readings do not depend on those two.
        test: rows encoded without end-of-text.
        validation: rows read during the run.
        check: called before each batch and each token written; may raise to end the reading.
        asked: what answers are generated to.
    """
    check()
    text, dtype = general_text(loaded, check), loaded.info.dtype

    def read() -> float:
        model = share_model(loaded.model)
        prefix = open_held_out(loaded, model, spec, text.rows, "text", BATCH_SIZE)
        return general_loss(model, text, dtype, check, prefix)

    lost = on_record(loaded, {**_own_text(loaded), "what": "general loss"}, read)
    metrics = replace(_on_rows(loaded, spec, test, "test", check), general_loss=lost)
    if asked.rows:
        writing = partial(write_answers, loaded.model, loaded, asked.rows, spec.generate_tokens, check)
        written = on_record(loaded, _about_written(loaded, asked, spec), writing)
        metrics = with_match(metrics, spec, asked, [(text, ended) for text, ended in written])
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


def knows_written(loaded: LoadedModel, spec: RunSpec, asked: Asked) -> bool:
    """Say whether what the base model writes to some rows is on record."""
    return not asked.rows or is_on_record(loaded, _about_written(loaded, asked, spec))


def _about_written(loaded: LoadedModel, asked: Asked, spec: RunSpec) -> dict[str, Any]:
    """Return what decides, beside the base model, what it writes."""
    ends = [list(row.ends) for row in asked.rows]  # as JSON gives it back
    about = {"what": "written", "rows": tokens_hash(asked.rows), "ends": ends, "n_new": spec.generate_tokens}
    return {**_own_text(loaded), **about}


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
    splits: EncodedSplits,
    base: BaseReading,
    check: Callable[[], None],
    tell: Callable[[float, float], None] = unheard,
) -> dict[str, Any]:
    """Return what a result holds of the tuned model's readings, made as the base model's are.

    Args:
        loaded: the base model.
        model: the tuned one.
        spec: of the run.
        splits: its rows.
        base: what was read before.
        check: called before each batch and each token written; may raise to end the reading.
        tell: called with batches of answers generated, and how many there are.
    """
    dtype, batch, text = loaded.info.dtype, spec.batch_size, base.text
    after = Metrics()
    with phase("test"):
        if splits.test:
            prefix = open_held_out(loaded, model, spec, splits.test, "test", batch)
            after = evaluate(model, splits.test, batch, dtype, check, prefix)
    with phase("forgetting"):
        prefix = open_held_out(loaded, model, spec, text.rows, "text", BATCH_SIZE)
        after = replace(after, general_loss=general_loss(model, text, dtype, check, prefix))
    with phase("answers"):
        answers = answers_of(model, loaded, splits.test, check)
    if splits.asked.rows:
        with phase("generating"):
            written = write_answers(model, loaded, splits.asked.rows, spec.generate_tokens, check, tell)
        after = with_match(after, spec, splits.asked, written)
    samples = tuple(replace(old, after=new) for old, new in zip(base.samples, answers, strict=True))
    return {"after": after, "samples": samples, "general_text": text.fingerprint}
