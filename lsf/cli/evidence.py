"""`evidence`: sweeps of one's own, beside the study behind the recommendation, on this machine."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsf.cli.arguments import load_asked_model, load_asked_task
from lsf.cli.terminal import TerminalReporter
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis, AnalysisSettings
from lsf.data.task import Task
from lsf.environment import spare_imports
from lsf.errors import BadInputError
from lsf.evidence.own import (
    OwnSweep,
    evidence_folder,
    keep_own,
    own_problems,
    own_sweeps,
    record_here,
    remove_own,
    scores_of,
    scores_read,
    truth_told,
)
from lsf.evidence.packed import elsewhere, sample_sizes, words
from lsf.evidence.standing import standing_rule
from lsf.evidence.sweep import Sweep
from lsf.progress import Forwarding, Phase, Reporter

SECONDS = 5.0
"""Expected of each sample before its pace is known; samples are as large as to cost the same."""


def evidence_options(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `evidence`."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="add|list|remove")
    add = actions.add_parser(
        "add", help="count a finished sweep as evidence, replacing an earlier one of the same model and data"
    )
    add.add_argument("sweep", type=Path, metavar="SWEEP", help="written by `sweep --json`")
    analysis = "an analysis of the same model and data; default: the criteria that the study compares are measured now"
    add.add_argument("--analysis", type=Path, metavar="FILE", help=analysis)
    add.set_defaults(command=add_command)
    listing = actions.add_parser("list", help="list your own sweeps and what the rule loses on each")
    listing.set_defaults(command=list_command)
    remove = actions.add_parser("remove", help="stop counting a sweep")
    remove.add_argument("name", nargs="+", help="its name in `evidence list`")
    remove.set_defaults(command=remove_command)


def add_command(arguments: argparse.Namespace) -> int:
    """Keep a sweep with its scores."""
    sweep, where = Sweep.load(arguments.sweep), str(arguments.sweep)
    truth_told(sweep, where)  # what cannot be counted is refused before anything is measured
    if arguments.analysis is not None:
        scores, examples = scores_of(Analysis.load(arguments.analysis), sweep, str(arguments.analysis))
    else:
        scores, examples = _scores_now(sweep, where)
    one = OwnSweep(sweep, scores, examples)
    path, replaced = keep_own(one)
    print(f"{'replaced' if replaced else 'added'}: {one.name} -> {path}")
    for line in _lines(one):
        print(line)
    print(f"The recommendation rests on {record_here().pairs}. {standing_rule(sweep.weights).why or ''}".rstrip())
    return 0


def _scores_now(sweep: Sweep, where: str) -> tuple[dict[str, tuple[float, ...]], dict[str, int]]:
    """Measure the criteria on the model and data that a sweep names, if they are what they were."""
    spec = sweep.spec
    task = load_asked_task(spec.run_spec(sweep.n_blocks, None, 0))
    if task.fingerprint != sweep.fingerprint:
        raise BadInputError(f"The data {spec.data} changed since {where} was measured; run the sweep again.")
    reporter = TerminalReporter()
    try:
        loaded = load_asked_model(spec.run_spec(sweep.n_blocks, None, 0), reporter)
        from lsf.models.loading import weights_hash

        spare_imports()
        if weights_hash(loaded.model) != sweep.weights:
            raise BadInputError(
                f"The weights of {spec.model} are not those that {where} was measured with; run the sweep again."
            )
        return _study_scores(loaded, task, spec.steps * spec.batch_size, reporter)
    finally:
        reporter.close()


class _Part(Forwarding):
    """A reporter of one analysis of several: of its own phases only the message is handed on."""

    def plan(self, phases: Sequence[Phase]) -> None:
        """Drop it."""

    def phase(self, name: str) -> None:
        """Drop it."""

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        """Say what it does."""
        self.report.progress(0, None, message)


def _study_scores(
    loaded: Any, task: Task, seen: int, report: Reporter
) -> tuple[dict[str, tuple[float, ...]], dict[str, int]]:
    """Score the blocks by every criterion of the study, on its sizes of samples of the training rows.

    Args:
        loaded: the model; unchanged.
        task: the data.
        seen: examples that the steps of one run of the sweep see.
        report: gets progress; its `stop` ends the analysis under way.

    Returns:
        Criterion -> score of each block, of those that scored every block; need -> rows read for it.

    Raises:
        LsfError: see `lsf.lens.analyze.analyze`.
    """
    from lsf.lens.analyze import analyze

    sizes = sample_sizes(seen)
    limits = {limit: [need for need in sizes if sizes[need] == limit] for limit in sizes.values()}
    phases = {limit: f"scoring blocks on {limit} rows" for limit in limits}
    report.plan([Phase(name, SECONDS) for name in phases.values()])
    scores, examples = dict[str, tuple[float, ...]](), dict[str, int]()
    for limit, needs in limits.items():
        names = tuple(name for name, entry in CRITERIA.items() if entry.needs in needs)
        report.phase(phases[limit])
        found = analyze(loaded, task, AnalysisSettings(criteria=names, split="train", limit=limit), _Part(report))
        more, read = scores_read(found)
        scores, examples = scores | more, examples | read
    return scores, examples


def list_command(arguments: argparse.Namespace) -> int:
    """Print the sweeps that count."""
    for one in own_sweeps():
        print(one.name)
        for line in _lines(one):
            print(line)
    for problem in own_problems():
        sys.stderr.write(f"lsf: {problem}\n")
    if not own_sweeps():
        sys.stderr.write(f"lsf: no sweeps of your own in {evidence_folder()}.\n")
    return 0


def _lines(one: OwnSweep) -> list[str]:
    """Return what was measured and, for each size of plan, what the rule lost there."""
    spec, measured = one.sweep.spec, one.measured
    lines = [
        f"  {spec.model} on {spec.data}: {spec.over}, seeds {spec.seeds}, steps {spec.steps}, by {measured.metric}"
    ]
    rule = standing_rule(one.sweep.weights)
    for budget in measured.setting.truth.budgets:
        for found in elsewhere([measured], rule.criteria, rule.ends_from, budget):
            lost, lot = (f"{100 * (share or 0.0):.1f} %" for share in (found.relative, found.by_lot))
            lines.append(
                f"  tuning {budget}: the rule names {words(found.choice)} and loses {lost}, at random {lot}; "
                f"best: {words(found.best)}"
            )
    return lines


def remove_command(arguments: argparse.Namespace) -> int:
    """Take sweeps out."""
    for name in arguments.name:
        print(f"removed {remove_own(name)}")
    return 0
