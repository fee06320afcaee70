"""`evidence`: sweeps of one's own, beside the study behind the recommendation, on this machine."""

import argparse
import sys

from lsf.cli.arguments import check_folder, load_asked_model, load_asked_task, place
from lsf.cli.terminal import TerminalReporter
from lsf.criteria.result import Analysis
from lsf.environment import spare_imports
from lsf.evidence.own import (
    OwnSweep,
    evidence_folder,
    keep_own,
    of_other_texts,
    own_problems,
    own_sweeps,
    record_here,
    remove_own,
    scores_of,
    texts_apart,
    truth_told,
)
from lsf.evidence.packed import elsewhere, words
from lsf.evidence.standing import standing_rule
from lsf.evidence.sweep import Sweep


def evidence_options(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `evidence`."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="add|list|remove")
    add = actions.add_parser(
        "add", help="count a finished sweep as evidence, replacing an earlier one of the same model, data and texts"
    )
    add.add_argument("sweep", type=place, metavar="SWEEP", help="written by `sweep --json`")
    analysis = "an analysis of the same model and data; default: the criteria that the study compares are measured now"
    add.add_argument("--analysis", type=place, metavar="FILE", help=analysis)
    add.set_defaults(command=add_command)
    listing = actions.add_parser("list", help="list your own sweeps and what the rule loses on each")
    listing.set_defaults(command=list_command)
    remove = actions.add_parser("remove", help="stop counting a sweep")
    remove.add_argument("name", nargs="+", help="its name in `evidence list`")
    remove.set_defaults(command=remove_command)


def add_command(arguments: argparse.Namespace) -> int:
    """Keep a sweep with its scores."""
    sweep, where = Sweep.load(arguments.sweep), str(arguments.sweep)
    check_folder(evidence_folder())
    truth_told(sweep, where)  # what cannot be counted is refused before anything is measured
    if arguments.analysis is not None:
        one = OwnSweep(sweep, *scores_of(Analysis.load(arguments.analysis), sweep, str(arguments.analysis)))
    else:
        one = _scored_now(sweep, where)
    path, replaced = keep_own(one)
    print(f"{'replaced' if replaced else 'added'}: {one.name} -> {path}")
    for line in _lines(one):
        print(line)
    for other in of_other_texts(one):
        print(
            f"Beside it counts {other.name}, of the same rows as other texts (another chat template, tokenizer or "
            f"--max-length); `lsf evidence remove {other.name}` takes it out."
        )
    print(f"The recommendation rests on {record_here().pairs}. {standing_rule(sweep.weights).why or ''}".rstrip())
    return 0


def _scored_now(sweep: Sweep, where: str) -> OwnSweep:
    """Measure the criteria on the model and data that a sweep names."""
    spec = sweep.spec.run_spec(sweep.n_blocks, None, 0)
    task = load_asked_task(spec)
    with TerminalReporter() as reporter:
        loaded = load_asked_model(spec, reporter)
        from lsf.evidence.scoring import scored_sweep

        spare_imports()
        return scored_sweep(loaded, task, sweep, where, reporter)


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
        f"{texts_apart(one)}"
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
