"""From a loaded model and a task to an analysis, streaming."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from lsf.analysis.builder import AnalysisBuilder
from lsf.analysis.criteria import CRITERIA
from lsf.analysis.result import Analysis, DataInfo, Timing
from lsf.analysis.settings import AnalysisSettings
from lsf.data.encode import Encoding, context_length, encode
from lsf.data.task import Task
from lsf.environment import environment
from lsf.errors import BadInputError, LsfError
from lsf.measure.batches import Batch, make_batches
from lsf.measure.gradients import block_gradients
from lsf.measure.loading import LoadedModel
from lsf.measure.probe import stream_readings
from lsf.measure.semantics import semantic_bases
from lsf.reporting import Reporter

PARTIAL_SECONDS = 0.25
"""Least time between two partial results."""


class StoppedError(LsfError, RuntimeError):
    """A stop was asked for before anything could be kept."""


def analyze(loaded: LoadedModel, task: Task, settings: AnalysisSettings, report: Reporter) -> Analysis:
    """Measure a task's examples in one streaming forward pass, and one backward pass where a criterion needs it.

    Args:
        loaded: the model; unchanged.
        task: where the examples come from.
        settings: which and how many, and how they are read.
        report: gets progress and partial analyses; its `stop` ends the pass early with what was read.

    Raises:
        DataError: no example fits.
        BadInputError: an unknown criterion, or a setting that is not available.
        StoppedError: a stop before the first batch, or one that keeps nothing.
    """
    needs = {CRITERIA[name].needs for name in settings.criteria}
    if settings.virtual == "calibrated":
        raise BadInputError("The calibrated virtual transition is not available yet; accepted is: even.")
    started = time.perf_counter()
    encoding = _encode(loaded, task, settings)
    batches = make_batches(encoding.rows, settings.positions, settings.batch_size, settings.seed, loaded.device)
    builder = _builder(loaded, task, settings, encoding)
    clock = _Clock(started)
    _forward(loaded, batches, settings, builder, clock, report)
    if "backward" in needs and not report.stop:
        gradients = block_gradients(loaded, batches, report)
        if gradients is not None:
            builder.set_gradients(gradients)
    return builder.result(clock.timing())


class _Clock:
    """Adds up seconds of forward passes and tokens read."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.forward_seconds = 0.0
        self.tokens = 0

    def timing(self) -> Timing:
        rate = self.tokens / self.forward_seconds if self.forward_seconds else None
        return Timing(self.forward_seconds, time.perf_counter() - self.started, rate)


def _forward(
    loaded: LoadedModel,
    batches: Sequence[Batch],
    settings: AnalysisSettings,
    builder: AnalysisBuilder,
    clock: _Clock,
    report: Reporter,
) -> None:
    report.progress(0, len(batches), "semantic bases")
    readings = stream_readings(loaded.anatomy, semantic_bases(loaded.anatomy.head_weight), batches, settings.reading)
    shown = time.perf_counter()
    for done, batch in enumerate(batches, 1):
        if report.stop == "discard" or (report.stop and done == 1):
            raise StoppedError("The analysis was stopped.")
        if report.stop:
            return
        begun = time.perf_counter()
        builder_input = next(readings)
        clock.forward_seconds += time.perf_counter() - begun
        clock.tokens += batch.n_tokens
        builder.add(builder_input)
        report.progress(done, len(batches), "forward pass")
        if time.perf_counter() - shown > PARTIAL_SECONDS and done < len(batches):
            report.partial(builder.result(clock.timing()))
            shown = time.perf_counter()
    report.partial(builder.result(clock.timing()))


def _encode(loaded: LoadedModel, task: Task, settings: AnalysisSettings) -> Encoding:
    examples = task.split(settings.split)[: settings.limit]
    return encode(loaded.tokenizer, examples, context_length(loaded.context, settings.max_length))


def _builder(loaded: LoadedModel, task: Task, settings: AnalysisSettings, encoding: Encoding) -> AnalysisBuilder:
    split = settings.split
    if split == "auto":
        split = "train" if task.own_splits else "all"
    data = DataInfo(
        name=task.name,
        split=split,
        n_examples=0,
        n_positions=0,
        n_dropped=encoding.n_dropped,
        positions=settings.positions,
        reading=settings.reading,
        virtual=settings.virtual,
        mean_tokens=sum(len(row.ids) for row in encoding.rows) / len(encoding.rows),
    )
    gpu = torch.cuda.get_device_name(loaded.device) if loaded.device.type == "cuda" else None
    return AnalysisBuilder(
        model=loaded.info,
        data=data,
        block_params=[sum(p.numel() for p in block.parameters()) for block in loaded.anatomy.blocks],
        examples=[row.example for row in encoding.rows],
        token_text=TokenText(loaded.tokenizer),
        criteria=settings.criteria,
        seed=settings.seed,
        environment=environment(gpu),
    )


class TokenText:
    """How a token is written in tables: its piece, with the markers of a leading space turned into one."""

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a transformers tokenizer; texts are looked up once."""
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, token: int) -> str:
        """Return the text of a token id; ids beyond the tokenizer (padded vocabularies) are written as <id>."""
        if token not in self._known:
            piece = self._tokenizer.convert_ids_to_tokens(token)
            text = f"<{token}>" if piece is None else str(piece)
            self._known[token] = text.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\\n")
        return self._known[token]
