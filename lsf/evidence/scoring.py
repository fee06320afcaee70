"""What the criteria of the study say of a model and task, on as many rows as a recommendation can afford."""

from collections.abc import Sequence

from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import AnalysisSettings
from lsf.data.task import Task
from lsf.errors import BadInputError
from lsf.evidence.own import OwnSweep, scores_read
from lsf.evidence.packed import sample_sizes
from lsf.evidence.sweep import Sweep
from lsf.evidence.sweeping import about_rows
from lsf.lens.analyze import analyze
from lsf.models.loading import LoadedModel, weights_hash
from lsf.progress import Forwarding, Phase, Reporter

SECONDS = 5.0
"""Expected of each sample before its pace is known; samples are as large as to cost the same."""


class _Part(Forwarding):
    """A reporter of one analysis of several: of its own phases only the message is handed on."""

    def plan(self, phases: Sequence[Phase]) -> None:
        """Drop it."""

    def phase(self, name: str) -> None:
        """Drop it."""

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        """Say what it does."""
        self.report.progress(0, None, message)


def study_scores(
    loaded: LoadedModel, task: Task, seen: int, report: Reporter, max_length: int | None = None
) -> tuple[dict[str, tuple[float, ...]], dict[str, int]]:
    """Score the blocks by every criterion of the study, on its sizes of samples of the training rows.

    Args:
        loaded: the model; unchanged.
        task: the data.
        seen: examples that the steps of one run of the sweep see.
        report: gets progress; its `stop` ends the analysis under way.
        max_length: tokens per example, as the sweep read them; None: the context, at most 1024.

    Returns:
        Criterion -> score of each block, of those that scored every block; need -> rows read for it.

    Raises:
        LsfError: see `lsf.lens.analyze.analyze`.
    """
    sizes = sample_sizes(seen)
    limits = {limit: [need for need in sizes if sizes[need] == limit] for limit in sizes.values()}
    phases = {limit: f"scoring blocks on {limit} rows" for limit in limits}
    report.plan([Phase(name, SECONDS) for name in phases.values()])
    scores, examples = dict[str, tuple[float, ...]](), dict[str, int]()
    for limit, needs in limits.items():
        names = tuple(name for name, entry in CRITERIA.items() if entry.needs in needs)
        report.phase(phases[limit])
        settings = AnalysisSettings(criteria=names, split="train", limit=limit, max_length=max_length)
        found = analyze(loaded, task, settings, _Part(report))
        more, read = scores_read(found)
        scores, examples = scores | more, examples | read
    return scores, examples


def scored_sweep(loaded: LoadedModel, task: Task, sweep: Sweep, where: str, report: Reporter) -> OwnSweep:
    """Return a sweep with the criteria's scores, measured now; as `study_scores`.

    Args:
        loaded: the model that the sweep tuned.
        task: the data that it tuned on.
        sweep: finished.
        where: names it in errors.
        report: gets progress.

    Raises:
        BadInputError: the model or the data are not what they were.
    """
    spec = sweep.spec
    if task.fingerprint != sweep.fingerprint:
        raise BadInputError(f"The data {spec.data} changed since {where} was measured; run the sweep again.")
    if weights_hash(loaded.model) != sweep.weights:
        raise BadInputError(
            f"The weights of {spec.model} are not those that {where} was measured with; run the sweep again."
        )
    if sweep.texts not in (None, about_rows(loaded, task, spec)["texts"]):
        raise BadInputError(
            f"The texts that are made of the rows of {spec.data} changed since {where} was measured, though the rows "
            "did not: the model has another tokenizer or chat template by now; run the sweep again."
        )
    return OwnSweep(sweep, *study_scores(loaded, task, spec.steps * spec.batch_size, report, spec.max_length))
