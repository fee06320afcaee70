"""Sweeps of the user's own, kept on this machine beside the study: their files, and the record of all pairs."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Literal

from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis, AnalysisSettings
from lsf.data.report import texts_in_words
from lsf.errors import BadInputError, LsfError, RunError, UnknownNameError
from lsf.evidence.packed import (
    AFFORDABLE,
    TOO_DEAR,
    Measured,
    RecommendationRecord,
    packed_evidence,
    packed_record,
    record_of,
)
from lsf.evidence.regret import METRICS, Metric, Truth, can_judge, truth_of
from lsf.evidence.study import CONTROLS, Setting, budgets_of
from lsf.evidence.sweep import Sweep
from lsf.files import make_folder
from lsf.plans.policies import ENDS_FROM, RECOMMENDED
from lsf.runs.comparability import RAW, kinds_in, made_by
from lsf.runs.verdict import SHORT_ANSWERS
from lsf.schema import JsonRecord

FOLDER_VARIABLE = "LSF_EVIDENCE"


def evidence_folder() -> Path:
    """Return the folder of own sweeps: LSF_EVIDENCE, or ~/.local/share/lsf/evidence; no cache, nobody sweeps it."""
    return Path(os.environ.get(FOLDER_VARIABLE) or "~/.local/share/lsf/evidence").expanduser()


@dataclass(frozen=True)
class OwnSweep(JsonRecord):
    """A finished sweep with the criteria's scores of the same model and data; one file of the folder."""

    noun: ClassVar = "own sweep"
    sweep: Sweep
    """What was measured."""
    scores: Mapping[str, tuple[float, ...]]
    """Criterion -> score of each block; only those that scored every block."""
    examples: Mapping[str, int]
    """Need -> training rows read for it."""
    schema_version: Literal[1] = 1

    @property
    def task(self) -> str:
        """What the data are called in tables."""
        return _last(self.sweep.spec.data)

    @property
    def pair(self) -> tuple[str | None, ...]:
        """What makes it one pair, whatever model and data are called: weights, rows, and how texts are made of them.

        Sweeps from before that was kept are told apart by what was asked, but for those that can only have read pairs
        as they stand. What the same way of making texts came to is compared by `counts_once_with`.
        """
        spec, made = self.sweep.spec, self.sweep.rendering
        if made is None and (spec.pairs == RAW or spec.data.startswith("lesson:")):
            made = RAW
        texts = self._asked if made is None else made_by(made, spec.train_on, spec.chat_template)
        return self.sweep.weights, self.sweep.fingerprint, *texts

    def counts_once_with(self, other: "OwnSweep") -> bool:
        """Say whether both are of one pair: the texts are the same too, or it is not known of one of them.

        The same rows become other texts by another chat template or tokenizer of the model, or cut elsewhere.
        """
        return self.pair == other.pair and len({self.sweep.first_texts, other.sweep.first_texts} - {None}) < 2

    @property
    def _asked(self) -> tuple[str | None, ...]:
        return self.sweep.spec.pairs, self.sweep.spec.train_on, self.sweep.spec.chat_template

    @property
    def name(self) -> str:
        """Of its file: model, task, and what tells it from others of the same names."""
        slug = re.sub(r"[^\w.]+", "-", f"{_last(self.sweep.spec.model)}-{self.task}").strip("-.")[:60]
        asked = self.sweep.weights, self.sweep.fingerprint, *self._asked
        asked += () if self.sweep.first_texts is None else (self.sweep.first_texts,)
        return f"{slug}-{sha256(repr(asked).encode()).hexdigest()[:6]}"

    @property
    def measured(self) -> Measured:
        """The pair as the study has its own."""
        spec, (truth, metric) = self.sweep.spec, truth_told(self.sweep, self.name)
        called = _last(spec.model)
        model = called if spec.model == "bundled" else f"{called} ({self.sweep.weights[:6]})"
        setting = Setting(self.name, model, self.task, truth, self.scores)
        return Measured(setting, metric, spec.steps, self.examples, {}, weights=self.sweep.weights)


def _last(name: str) -> str:
    return name.removeprefix("lesson:").rstrip("/").rpartition("/")[2]


def truth_told(sweep: Sweep, where: str) -> tuple[Truth, Metric]:
    """Return what a sweep says of the budgets that the study compares, by exact match where it can judge, else by loss.

    Of a size whose runs of neighbours were not all tuned, nothing is kept: a rule's choice may be missing there.

    Args:
        sweep: of the user's.
        where: names it in errors.

    Raises:
        BadInputError: runs are missing, or the prior; no such budget; or no plan gains anything, so that no regret is
            known.
    """
    if sweep.missing:
        cell, n_all = sweep.missing[0], len(sweep.cells)
        raise BadInputError(
            f"{where} lacks {len(sweep.missing)} of its {n_all} runs (the first: {cell.plan}, seed {cell.seed}: "
            f"{(cell.reason or 'no score').rstrip('.')}); the `sweep` command that began it, with the same options "
            "and --json, goes on with it."
        )
    if sweep.prior is None:
        raise BadInputError(
            f"{where} was measured before sweeps held the best answer that ignores the prompt, from which gain is "
            "counted; the `sweep` command that began it, with the same options and --json, adds it."
        )
    gains = False
    for metric in METRICS:
        if any(cell.after is None or getattr(cell.after, metric) is None for cell in sweep.cells):
            continue
        truth = _whole_sizes(truth_of(sweep, metric))
        sizes = budgets_of(Setting(where, "", "", truth, {}))
        if not sizes:
            quarter = max(1, truth.n_blocks // 4)
            families = ", ".join(["single", *(f"window:{size}" for size in dict.fromkeys((2, quarter)) if size > 1)])
            raise BadInputError(
                f"{where} holds plans of {sweep.spec.over}, and not all of a size that the study compares; accepted is "
                f"a sweep --over one or more of: {families}."
            )
        known = truth.gains and can_judge(truth, metric)
        gains |= known
        if known and any(truth.differ(truth.plans(size)) for size in sizes):
            return truth, metric
    told = (
        "no plan of it can be told from another, by exact match or by the loss"
        if gains
        else "no plan does better than the base model and than the best answer that ignores the prompt, by "
        f"{100 * SHORT_ANSWERS:.0f} % of the answers or by the loss"
    )
    raise BadInputError(f"In {where} {told}; a sweep of more steps may tell.")


def _whole_sizes(truth: Truth) -> Truth:
    """Return a truth with those plans alone whose size has every run of neighbours measured; its unit is of all."""

    def whole(size: int) -> bool:
        runs = (tuple(range(start, start + size)) for start in range(truth.n_blocks - size + 1))
        return all(run in truth.scores for run in runs)

    sizes = {size for size in {len(blocks) for blocks in truth.scores} if whole(size)}
    kept = {blocks: own for blocks, own in truth.scores.items() if len(blocks) in sizes}
    return replace(truth, scores=kept, beside=max(map(truth.mean, truth.scores), default=None))


def compared_criteria() -> tuple[str, ...]:
    """Return the criteria that the study compares, and its controls."""
    names = [name for name, entry in CRITERIA.items() if entry.needs in AFFORDABLE and entry.needs not in TOO_DEAR]
    known = [name for name in names if all(name in one.setting.scores for one in packed_evidence())]
    return (*known, *CONTROLS)


def scores_read(analysis: Analysis) -> tuple[dict[str, tuple[float, ...]], dict[str, int]]:
    """Return the scores of criteria that scored every block, and how many rows were read for each need."""
    found = {name: tuple(one for one in analysis.scores(name) if one is not None) for name in analysis.criteria}
    examples = {CRITERIA[name].needs: analysis.data.n_examples for name in found if name in CRITERIA}
    if analysis.data.kernel_examples is not None and "kernel" in examples:
        examples["kernel"] = analysis.data.kernel_examples
    return found, dict(examples)


STUDY = vars(AnalysisSettings())
"""How the study reads, by the defaults."""
READ_ALIKE = ("positions", "reading", "virtual")
"""Settings of an analysis without which a criterion of the study is another one."""


def scores_of(analysis: Analysis, sweep: Sweep, where: str) -> tuple[dict[str, tuple[float, ...]], dict[str, int]]:
    """Return what an analysis says of the model and data of a sweep; as `scores_read`.

    Args:
        analysis: of the user's.
        sweep: of the same model and data.
        where: names the analysis in errors.

    Raises:
        BadInputError: it is of another model, other rows or other texts made of them, read rows that the sweep tests
            on or read them in another way than the study, or lacks criteria.
    """
    data, there = analysis.data.name, sweep.spec.data
    measured = analysis.blocks[0].scores if analysis.blocks else {}
    lacking = [name for name in compared_criteria() if name not in measured]
    wrong = None
    if (found := analysis.model.n_blocks) != sweep.n_blocks:
        wrong = f"is of a model of {found} blocks and the sweep of one of {sweep.n_blocks}"
    elif analysis.weights != sweep.weights:
        wrong = "is not of the weights that the sweep tuned"
    elif data != there and Path(data).resolve() != Path(there).resolve():
        wrong = f"is of {data} and the sweep of {there}"
    elif (rows := analysis.data.fingerprint) is None:
        wrong = "was written before analyses kept which rows they are of; analyse again"
    elif rows != sweep.fingerprint:
        wrong = f"is of other rows or other templates than the sweep of {there}"
    elif analysis.data.split != "train":
        wrong = f"read the split {analysis.data.split}, with rows that the sweep tests on; analyse with --split train"
    elif (
        (made := analysis.data.rendering) is not None
        and sweep.rendering is not None
        and kinds_in(made) != kinds_in(sweep.rendering)
    ):
        ours, theirs = texts_in_words(made), texts_in_words(sweep.rendering)
        wrong = f"made its texts of the rows by {ours} and the sweep by {theirs}"
    elif None not in (texts := (analysis.data.first_texts, sweep.first_texts)) and len(set(texts)) > 1:
        wrong = (
            "made other texts of the rows than the sweep; analyse with its tokenizer, chat template, --train-on and "
            "--max-length"
        )
    elif odd := [f"{name} {value}" for name in READ_ALIKE if (value := getattr(analysis.data, name)) != STUDY[name]]:
        wrong = f"read {', '.join(odd)} and the study {', '.join(f'{name} {STUDY[name]}' for name in READ_ALIKE)}"
    elif lacking:
        wrong = f"lacks {', '.join(lacking)}; analyse with --criteria {','.join(compared_criteria())}"
    if wrong is not None:
        raise BadInputError(f"{where} {wrong}; without --analysis the criteria are measured now.")
    return scores_read(analysis)


def keep_own(one: OwnSweep) -> tuple[Path, bool]:
    """Write a sweep into the folder, in the place of one of the same model, data and texts.

    Returns:
        Its file, and whether there was one before.

    Raises:
        BadInputError: the recommended criterion is not defined there, it does not say which of several pairs it is of,
            or the folder cannot be written to.
    """
    if lacking := [name for name in (*RECOMMENDED, *CONTROLS) if name not in one.scores]:
        raise BadInputError(f"{lacking[0]} is not defined for every block of {one.sweep.spec.model} on these rows.")
    folder = evidence_folder()
    make_folder(folder)
    path = folder / f"{one.name}.json"
    twins = {known: own for known, own in _kept().items() if own.counts_once_with(one)}
    if len({own.sweep.first_texts for own in twins.values()} - {None}) > 1:
        names = ", ".join(sorted(known.stem for known in twins))
        raise BadInputError(
            f"The sweep of {one.sweep.spec.model} on {one.sweep.spec.data} was written before sweeps kept which texts "
            f"are made of the rows, and may be of any of {len(twins)} that count, which differ in that; run it again, "
            f"or remove all but one of {names}."
        )
    replaced = path.exists() or bool(twins)
    one.save(path)
    for twin in twins.keys() - {path}:
        twin.unlink(missing_ok=True)
    return path, replaced


def _kept() -> dict[Path, OwnSweep]:
    """Return the sweeps of the folder that can be read, by their files."""
    found = {}
    for path, *_ in _files():
        with suppress(LsfError):  # of a file that cannot be read nothing is known
            found[path] = OwnSweep.load(path)
    return found


def of_other_texts(one: OwnSweep) -> tuple[OwnSweep, ...]:
    """Return the sweeps that count of the same model and rows, made in the same way into other texts."""
    return tuple(own for own in own_sweeps() if own.pair == one.pair and not own.counts_once_with(one))


def texts_apart(one: OwnSweep) -> str:
    """Return words that tell a sweep from those of `of_other_texts`, by its texts' hash; empty where there are none."""
    return f", texts {(one.sweep.first_texts or '')[:6]}" if of_other_texts(one) else ""


def remove_own(name: str) -> Path:
    """Take a sweep out of the folder, one that cannot be read too.

    Raises:
        UnknownNameError: there is none of that name.
        RunError: the disk does not let it go.
    """
    known = {path.stem: path for path, *_ in _files()}
    if name not in known:
        raise UnknownNameError("sweep of your own", name, known or ["none yet"])
    try:
        known[name].unlink()
    except OSError as error:
        raise RunError(f"Cannot remove {known[name]}: {error.strerror or error}.") from error
    return known[name]


Files = tuple[tuple[Path, int, int], ...]
"""Path, time of writing in ns, and bytes of each file: what tells whether they must be read again."""


def _files() -> Files:
    try:
        found = [(path, path.stat()) for path in sorted(evidence_folder().glob("*.json"))]
    except OSError:
        return ()
    return tuple((path, about.st_mtime_ns, about.st_size) for path, about in found)


@lru_cache(maxsize=2)
def _read(files: Files) -> tuple[tuple[OwnSweep, ...], tuple[Measured, ...], tuple[str, ...]]:
    kept, problems = list[tuple[Path, OwnSweep, Measured]](), []
    for path, *_ in sorted(files, key=lambda file: file[1], reverse=True):  # of one pair the newest counts
        try:
            one = OwnSweep.load(path)
            if (twin := next((known for known, own, _ in kept if own.counts_once_with(one)), None)) is not None:
                raise BadInputError(f"{path} is of the same model and data as {twin.name}.")
            kept.append((path, one, one.measured))
        except LsfError as error:
            problems.append(f"{error} It is left out; `lsf evidence remove {path.stem}` removes it.")
    kept.sort(key=lambda found: found[0])
    return tuple(one for _, one, _ in kept), tuple(pair for *_, pair in kept), tuple(sorted(problems))


def own_sweeps() -> tuple[OwnSweep, ...]:
    """Return the sweeps of the folder, by name."""
    return _read(_files())[0]


def own_evidence() -> tuple[Measured, ...]:
    """Return the pairs of the folder, by name."""
    return _read(_files())[1]


def own_problems() -> tuple[str, ...]:
    """Return a sentence for each file of the folder that cannot be counted."""
    return _read(_files())[2]


def all_evidence() -> tuple[Measured, ...]:
    """Return the study's pairs, then the user's own; a pair of the study that was swept again counts as the user's."""
    return _all(_files())


def _all(files: Files) -> tuple[Measured, ...]:
    sweeps, own, _ = _read(files)
    lessons = [pair for one, pair in zip(sweeps, own, strict=True) if one.sweep.spec.data.startswith("lesson:")]
    again = {(one.setting.model, one.setting.task) for one in lessons}  # other data may be called as a lesson is
    return (*(one for one in packed_evidence() if (one.setting.model, one.setting.task) not in again), *own)


def record_here() -> RecommendationRecord:
    """Return how the study's rule did on all pairs: the packed record where there are no own ones."""
    return _record(_files()) if own_evidence() else packed_record()


@lru_cache(maxsize=2)
def _record(files: Files) -> RecommendationRecord:
    return record_of(_all(files), RECOMMENDED, ENDS_FROM)
