"""From a loaded model and a task to an analysis, streaming."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lsf.criteria.agreement import LEAST_EXAMPLES, settled
from lsf.criteria.registry import CRITERIA, Need
from lsf.criteria.result import Analysis, AnalysisSettings, DataInfo, Timing, Trajectories
from lsf.criteria.transitions import even_fractions
from lsf.data.contents import Segments
from lsf.data.encode import EVERY, EncodedExample, Encoding, context_length, encode
from lsf.data.report import first_texts, unknown_targets, unlike_the_rest
from lsf.data.task import Task
from lsf.environment import environment
from lsf.errors import BadInputError, StoppedError
from lsf.lens.builder import AnalysisBuilder
from lsf.lens.forward import ABLATION, Wanted, ablation_batches, ablation_rises, stream_readings
from lsf.lens.gradients import GRADIENTS, backward_readings
from lsf.lens.kernels import KERNELS, SPECTRA, block_spectra, over_the_bound, sampled_kernels
from lsf.lens.semantics import semantic_bases
from lsf.lens.speed import BASES, FORWARD, SHORT_RUNS, analysis_phases
from lsf.lens.trajectories import KEPT_EXAMPLES, ExampleTrajectories, examples_for_sample
from lsf.lens.translators import FITTING, are_kept, translators_of
from lsf.models.batches import MOST_PADDING, Batch, autocasting, make_batches
from lsf.models.devices import is_out_of_memory, places_of
from lsf.models.loading import LoadedModel, check_ids, is_known_by_weights, layout_of, weights_hash
from lsf.models.quantised import n_values
from lsf.progress import Reporter
from lsf.settings import TRANSLATED


class TokenText:
    """The text of a token: its piece with the space and the letters that a tokenizer's alphabet writes otherwise.

    A token that holds only a part of a character's bytes is written by them: `<0xE6>`.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a transformers tokenizer; texts are looked up once."""
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}
        decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
        bytewise = "ByteLevel(" in repr(decoder)
        self._byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()} if bytewise else {}

    def __call__(self, token: int) -> str:
        """Return the text of a token id; ids beyond the tokenizer (padded vocabularies) are written as <id>."""
        if token not in self._known:
            piece = self._tokenizer.convert_ids_to_tokens(token)
            self._known[token] = f"<{token}>" if piece is None else self._written(str(piece))
        return self._known[token]

    def _written(self, piece: str) -> str:
        if not self._byte_of.keys() >= set(piece):  # not bytewise, or a token that was added as it stands
            return piece.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n")
        held = bytes(self._byte_of[letter] for letter in piece)
        try:
            return held.decode()
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in held)


PARTIAL_SECONDS = 0.25
"""Least time between two partial results."""
READ_TOKENS = 64
"""Tokens that are kept, as text, of what was read up to a position that is drawn."""
BACKWARD: set[Need] = {"backward", "per_example", "trial_step"}
"""Needs that `backward_readings` answers."""
BEYOND_FORWARD: set[Need] = {"bypass", "backward", "per_example", "trial_step", "kernel", "weights", "runs"}
"""Needs that more than the forward pass answers."""
ShortRuns = Callable[[LoadedModel, Task, AnalysisSettings, Reporter], Any]


def analyze(
    loaded: LoadedModel,
    task: Task,
    settings: AnalysisSettings,
    report: Reporter,
    short_runs: ShortRuns | None = None,
) -> Analysis:
    """Measure a task's examples: one streaming forward pass, and one backward pass where a criterion needs it.

    Where memory does not suffice for what comes after the forward pass, its scores are None, and `data.short` says so.

    Args:
        loaded: the model; unchanged.
        task: where the examples come from.
        settings: which and how many, and how they are read.
        report: gets progress and partial analyses; its `stop` ends the passes early with what was read.
        short_runs: `lsf.training.short_runs.probe_blocks`, which the criterion `probe` needs.

    Raises:
        DataError: no example fits.
        BadInputError: an unknown criterion; one that needs a backward pass on a model spread over devices; a raw
            reading where head and states differ in width; or no example is answered right to calibrate on.
        StoppedError: a stop before the first batch, or one that keeps nothing.
    """
    needs: set[Need] = {CRITERIA[name].needs for name in settings.criteria}
    _refuse_backward(loaded, settings)
    _refuse_raw(loaded, settings)
    started = time.perf_counter()
    settings, counts, encoding, batches = _batches(loaded, task, settings)
    sampled = examples_for_sample(batch.examples for batch in batches) if "states" in needs else 0
    builder = _builder(loaded, task, settings, encoding, counts)
    clock = _Clock(started)

    def check() -> None:
        if report.stop:
            raise StoppedError("The analysis was stopped.")

    fitted = settings.reading if settings.reading in TRANSLATED and not are_kept(loaded, settings.reading) else None
    report.plan(analysis_phases(loaded, batches, needs, len(task.validation), check, fitted))
    batches = batches[: _forward(loaded, batches, settings, needs, sampled, builder, clock, report)]
    read = {int(number) for batch in batches for number in batch.examples}
    builder.mark_tokens(_counted([encoding.rows[number] for number in sorted(read)], loaded.tokenizer))
    short = _beyond_forward(loaded, encoding.rows, batches, settings, needs, builder, report)
    if "runs" in needs and short_runs is not None and not report.stop:
        report.phase(SHORT_RUNS)
        runs = short_runs
        if not _fits(lambda: builder.record(probe_drop=runs(loaded, task, settings, report))):
            short.add("runs")
    if report.stop == "discard":
        raise StoppedError("The analysis was stopped.")
    if short:
        builder.mark_short(_short_words(settings, short, loaded))
    weights = weights_hash(loaded.model) if is_known_by_weights(loaded.model) else None
    return replace(builder.result(clock.timing()), weights=weights)


def _batches(
    loaded: LoadedModel, task: Task, settings: AnalysisSettings
) -> tuple[AnalysisSettings, tuple[int, int], Encoding, list[Batch]]:
    """Return the settings as the rows allow them, how many rows there are and were taken, and all as it is read."""
    rows = task.split(settings.split)
    examples = rows[: settings.limit]
    encoding = encode(loaded.tokenizer, examples, context_length(loaded.context, settings.max_length))
    check_ids(loaded, encoding.rows)
    if settings.positions == "first" and all(row.is_text for row in encoding.rows):
        settings = replace(settings, positions=f"every:{EVERY}")  # no answer begins anywhere
    batches = make_batches(
        encoding.rows, settings.positions, settings.batch_size, settings.seed, loaded.device, MOST_PADDING
    )
    return settings, (len(rows), len(examples)), encoding, batches


def paths_after(
    loaded: LoadedModel, tuned: Any, task: Task, settings: AnalysisSettings, n_examples: int, report: Reporter
) -> Trajectories:
    """Return the paths that an analysis keeps as a tuned model takes them, in the components of that analysis.

    These are fitted to the base model's states of the first batch, as the analysis fits them, so that a path before
    tuning and the same after it can be drawn together. Virtual paths are paced evenly.

    Args:
        loaded: the base model of the analysis; unchanged.
        tuned: a model over it, such as that of `lsf.training.artefacts.load_tuned`.
        task: the data of the analysis.
        settings: of the analysis.
        n_examples: how many the analysis read (`data.n_examples`): fewer than there are where its ranking settled or
            it was stopped and kept. The paths are at exactly its positions.
        report: gets progress; its `stop` ends the reading.

    Raises:
        DataError, BadInputError: as of `analyze`, or the analysis kept no path.
        StoppedError: a stop was asked for.
    """
    settings, _, encoding, batches = _batches(loaded, task, settings)
    translate = translators_of(loaded, settings.reading, report) if settings.reading in TRANSLATED else None
    wanted, layout = Wanted(settings.reading, translate, pictures=KEPT_EXAMPLES), layout_of(tuned)
    read_at = partial(_read_at, loaded.tokenizer, encoding.rows, settings.positions)
    paths = ExampleTrajectories([row.example for row in encoding.rows], TokenText(loaded.tokenizer), read_at)
    base = head = semantic_bases(loaded.layout.head_weight)
    if layout.head_weight.data_ptr() != base.head_weight.data_ptr():  # tuned too
        head = semantic_bases(layout.head_weight)
    for first in stream_readings(loaded.layout, base, batches[:1], wanted):
        paths.fit(first)
    ends = np.cumsum([len(batch.ids) for batch in batches])  # batches have whole examples, in the analysis' order
    read_then = batches[: int(np.searchsorted(ends, n_examples)) + 1]
    kept = [batch for batch in read_then if min(batch.examples) < KEPT_EXAMPLES]
    with autocasting(tuned, loaded.info.dtype):
        for done, read in enumerate(stream_readings(layout, head, kept, wanted), 1):
            if report.stop:
                raise StoppedError("The reading of the tuned model was stopped.")
            paths.add(read)
            report.progress(done, len(kept), "reading the tuned model")
    found = paths.trajectories(even_fractions(loaded.info.n_blocks))
    if found is None:
        raise BadInputError(f"The analysis read none of the first {KEPT_EXAMPLES} examples, whose paths are kept.")
    return found


def _refuse_backward(loaded: LoadedModel, settings: AnalysisSettings) -> None:
    """Refuse criteria that a model spread over several devices cannot give, naming those it can."""
    if not places_of(loaded.model):
        return
    asked = [name for name in settings.criteria if CRITERIA[name].needs in BEYOND_FORWARD - {"weights"}]
    if asked:
        possible = [name for name in CRITERIA if CRITERIA[name].needs not in BEYOND_FORWARD - {"weights"}]
        raise BadInputError(
            f"The model is spread over {', '.join(places_of(loaded.model))}, where no backward pass and none without a "
            f"block is possible, which {', '.join(asked)} would need; accepted are the criteria: {', '.join(possible)}."
        )


def _refuse_raw(loaded: LoadedModel, settings: AnalysisSettings) -> None:
    """Refuse the raw reading of a model whose head is of another width than its states: no angle lies between them."""
    if settings.reading != "raw":
        return
    head_width = loaded.layout.head_weight.shape[1]
    if head_width != loaded.info.width:
        raise BadInputError(
            f"The states of {loaded.info.name} have width {loaded.info.width} and its head reads {head_width}, so raw "
            "states cannot be put beside meanings of tokens; accepted is the reading: lens."
        )


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
    needs: set[Need],
    sampled: int,
    builder: AnalysisBuilder,
    clock: _Clock,
    report: Reporter,
) -> int:
    """Read batches until they end, the ranking settles or a stop is asked for; return how many were read."""
    judge = _judge(settings)
    translate = None
    if settings.reading in TRANSLATED:
        report.phase(FITTING)
        translate = translators_of(loaded, settings.reading, report)
    wanted = Wanted(settings.reading, translate, "vocabulary" in needs, KEPT_EXAMPLES, sampled, "path" in needs)
    report.phase(BASES)
    bases = semantic_bases(loaded.layout.head_weight)
    if bases.jittered:
        builder.mark_jittered()
    report.phase(FORWARD)
    readings = stream_readings(loaded.layout, bases, batches, wanted)
    shown, examples = time.perf_counter(), 0
    for done, batch in enumerate(batches, 1):
        if report.stop == "discard" or (report.stop and done == 1):
            raise StoppedError("The analysis was stopped.")
        if report.stop:
            return done - 1
        begun = time.perf_counter()
        read = next(readings)
        clock.forward_seconds += time.perf_counter() - begun
        clock.tokens += batch.n_tokens
        examples += len(batch.ids)
        builder.add(read)
        report.progress(done, len(batches), FORWARD)
        if builder.ready and time.perf_counter() - shown > PARTIAL_SECONDS and done < len(batches):
            report.partial(builder.result(clock.timing()))
            shown = time.perf_counter()
        if judge and done & (done - 1) == 0 and examples >= LEAST_EXAMPLES:  # at powers of two
            halves = builder.halves(judge)
            if halves is not None and settled(*halves):
                builder.mark_settled()
                return done
    if needs & BEYOND_FORWARD:  # else the result itself follows at once
        report.partial(builder.result(clock.timing()))
    return len(batches)


def _judge(settings: AnalysisSettings) -> str | None:
    """Return the criterion whose ranking decides when enough was read; None where all is to be read."""
    if not settings.settle:
        return None
    for name in settings.criteria:
        if CRITERIA[name].needs == "forward":
            return name
    raise BadInputError("To stop when the ranking has settled, a criterion of the forward pass is needed: deviation.")


def _beyond_forward(
    loaded: LoadedModel,
    rows: Sequence[EncodedExample],
    batches: Sequence[Batch],
    settings: AnalysisSettings,
    needs: set[Need],
    builder: AnalysisBuilder,
    report: Reporter,
) -> set[Need]:
    """Measure what takes more than the forward pass; a stop leaves out what was not reached.

    Returns:
        What memory did not suffice for: it is left out, and what was measured before is kept.
    """
    short = set[Need]()
    if needs & BACKWARD and not report.stop:
        short |= _record_gradients(loaded, batches, needs, builder, report)

    def bypassed() -> None:
        ablated = ablation_batches(loaded, rows, settings)
        if (found := ablation_rises(loaded, ablated, report)) is not None:
            builder.record(ablation_rise=found)
            builder.mark_ablated(sum(len(batch.targets) for batch in ablated))

    def kernels() -> None:
        if (found := sampled_kernels(loaded, rows, settings, report)) is not None:
            builder.record(kernels=found)
        elif over_the_bound(loaded):
            short.add("kernel")

    def spectra() -> None:
        if (found := block_spectra(loaded, report)) is not None:
            builder.record(spectra=found)

    passes = (("bypass", ABLATION, bypassed), ("kernel", KERNELS, kernels), ("weights", SPECTRA, spectra))
    for need, name, measure in passes:
        if need in needs and not report.stop:
            report.phase(name)
            if not _fits(measure):
                short.add(need)
    return short


def _record_gradients(
    loaded: LoadedModel, batches: Sequence[Batch], needs: set[Need], builder: AnalysisBuilder, report: Reporter
) -> set[Need]:
    """Measure gradients, without the trial step where that does not fit; return what memory fell short of."""
    short: set[Need] = set()
    report.phase(GRADIENTS)
    for wanted in (needs & BACKWARD, needs & BACKWARD - {"trial_step"}):
        if not wanted or report.stop:
            break

        def read(wanted: set[Need] = wanted) -> None:
            found = backward_readings(loaded, batches, report, "per_example" in wanted, "trial_step" in wanted)
            if found is not None:
                builder.record(gradients=found.gradients, fisher=found.fisher, first_order_drop=found.first_order_drop)

        if _fits(read):
            return short & {"trial_step"}
        short |= wanted
        if "trial_step" not in wanted:
            break
    return short


def _fits(measure: Callable[[], None]) -> bool:
    """Measure something; return whether memory sufficed for it."""
    try:
        measure()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _short_words(settings: AnalysisSettings, short: set[Need], loaded: LoadedModel) -> str:
    """Return the sentences on the criteria that memory did not suffice for."""
    bound, told = over_the_bound(loaded) if "kernel" in short else None, []
    by_bound = {"kernel"} if bound else set[Need]()
    if names := [name for name in settings.criteria if CRITERIA[name].needs in by_bound]:
        told.append(f"{', '.join(names)}: not measured, since {bound}.")
    if names := [name for name in settings.criteria if CRITERIA[name].needs in short - by_bound]:
        told.append(
            f"{loaded.info.device} has too little memory for {', '.join(names)}: not measured; take shorter examples "
            "(max_length), a smaller dtype or another device."
        )
    return " ".join(told)


def _read_at(tokenizer: Any, rows: Sequence[EncodedExample], positions: str, example: int, nth: int) -> str:
    """Return the end of what is read at the nth position of an example, its current token included."""
    place = rows[example].looked_at(positions)[nth]
    return tokenizer.decode(rows[example].ids[max(0, place + 1 - READ_TOKENS) : place + 1])


def _counted(rows: Sequence[EncodedExample], tokenizer: Any) -> dict[str, Any]:
    """Return the fields of DataInfo on tokens; of those that training predicts, its own end-of-text is one."""
    windows = {id(row.example): row for row in rows if row.is_text}  # of a text the last window alone is ended
    ended = (*windows.values(), *(row for row in rows if not row.is_text))
    end = tokenizer.eos_token_id
    added = 0 if end is None else sum(_is_ended(row, end) for row in ended)
    tokens, targets = (sum(counts) for counts in zip(*((len(row.ids), row.n_targets) for row in rows), strict=True))
    share, attended = (targets + added) / (tokens + added), sum(len(row.ids) ** 2 for row in rows) / tokens
    return {"mean_tokens": tokens / len(rows), "attended_tokens": attended, "target_share": share}


def _is_ended(row: EncodedExample, end: int) -> bool:
    """Say whether training appends end-of-text to a row: behind all but chats, token ids, and segments not learned."""
    content = row.example.content
    if isinstance(content, Segments):
        return [wanted for wanted, part in content.parts if part][-1] and row.ids[-1] != end
    return row.ids[-1] != end if row.is_text else not row.spans and row.n_targets == row.n_completion


def _builder(
    loaded: LoadedModel, task: Task, settings: AnalysisSettings, encoding: Encoding, counts: tuple[int, int]
) -> AnalysisBuilder:
    split = settings.split if settings.split != "auto" else "train" if task.own_splits else "all"
    data = DataInfo(
        name=task.name,
        split=split,
        n_examples=0,
        n_positions=0,
        n_dropped=encoding.n_dropped,
        n_straddling=encoding.n_straddling,
        positions=settings.positions,
        fingerprint=task.fingerprint,
        rendering=encoding.rendering,
        told=encoding.facts,
        first_texts=first_texts(loaded.tokenizer, task.train, context_length(loaded.context, settings.max_length)),
        reading=settings.reading,
        virtual=settings.virtual,
        settled=False if settings.settle else None,
        **_counted(encoding.rows, loaded.tokenizer),
        n_rows=counts[0],
        n_taken=counts[1],
        unknown=unknown_targets(loaded.tokenizer, encoding.rows),
        unlike=unlike_the_rest(task.split(settings.split), counts[1]),
    )
    gpu = torch.cuda.get_device_name(loaded.device) if loaded.device.type == "cuda" else None
    return AnalysisBuilder(
        model=loaded.info,
        data=data,
        block_params=[sum(n_values(p) for p in block.parameters()) for block in loaded.layout.blocks],
        examples=[row.example for row in encoding.rows],
        token_text=TokenText(loaded.tokenizer),
        read_at=partial(_read_at, loaded.tokenizer, encoding.rows, settings.positions),
        criteria=settings.criteria,
        seed=settings.seed,
        environment=environment(gpu),
    )
