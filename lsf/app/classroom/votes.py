"""The histogram of a class's predictions, beside what was measured, and the sentence under both."""

from collections.abc import Sequence

from lsf.evidence.packed import Measured, shown
from lsf.evidence.regret import regret
from lsf.evidence.study import decided, level_with_best, within_chance
from lsf.figures.palette import CHOSEN, UNCHOSEN
from lsf.figures.sweeps import METRIC_WORDS

WIDEST = 100.0
"""Per cent of its cell that the longest bar takes."""
STYLE = f"""<style>
.lsf-votes {{ width: 100%; max-width: 62rem; border-collapse: collapse; table-layout: fixed; margin: 0; }}
.lsf-votes.half {{ max-width: 33rem; }}
.lsf-votes th, .lsf-votes td {{ padding: 0.16rem 0.5rem; border: none; text-align: left; font-weight: 400; }}
.lsf-votes thead th {{ opacity: 0.75; font-size: 0.9rem; }}
.lsf-votes thead th:first-child {{ width: 6.5rem; }}
.lsf-votes .number {{ width: 4rem; padding-left: 0; }}
.lsf-votes i {{ display: block; height: 1.15rem; min-width: 1px; border-radius: 2px; background: {UNCHOSEN.color}; }}
.lsf-votes .best i {{ border: 1.5px solid {CHOSEN.color};
  background: repeating-linear-gradient(45deg, {CHOSEN.color} 0 3px, transparent 3px 6px); }}
.lsf-votes tr.own th {{ font-weight: 700; }}
</style>"""


def votes_html(counts: Sequence[int], measured: Measured | None, own: int | None = None) -> str:
    """Return a table of bars, the last block on top as in the tower: predictions, and beside them what was measured.

    Args:
        counts: predictions of each block, block 0 first.
        measured: exact match of a lesson; None where it is not revealed.
        own: the block that this student predicted; None for nobody's.
    """
    truth = None if measured is None else [measured.setting.truth.mean((block,)) for block in range(len(counts))]
    head, size = "<th>Block</th><th>Predictions</th><th class='number'></th>", " half"
    if measured is not None:
        head += f"<th>Measured, tuned alone: {METRIC_WORDS[measured.metric]}</th><th class='number'></th>"
        size = ""
    rows = []
    for block in reversed(range(len(counts))):
        mine = " class='own'" if block == own else ""
        row = f"<tr{mine}><th scope='row'>{block}{' (yours)' if mine else ''}</th>"
        row += _bar(counts[block], max(*counts, 1), str(counts[block]))
        if truth is not None and measured is not None:
            best = max(truth)
            row += _bar(truth[block], best, shown(truth[block], measured.metric), truth[block] == best)
        rows.append(f"{row}</tr>")
    return f"{STYLE}<table class='lsf-votes{size}'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _bar(length: float, longest: float, label: str, best: bool = False) -> str:
    share = WIDEST * length / longest if longest > 0 else 0.0
    kind = " best" if best else ""
    return f"<td class='bar{kind}'><i style='width:{share:.0f}%'></i></td><td class='number'>{label}</td>"


def beside_it(measured: Measured) -> str:
    """Return what the measured bars are to be seen beside: the base model and the whole model."""
    truth, metric = measured.setting.truth, measured.metric
    full = sum(truth.full) / len(truth.full)
    return (
        f"For comparison: the base model {shown(truth.base, metric)}, the whole model tuned {shown(full, metric)}. "
        f"Means of {len(truth.full)} runs, measured before this class."
    )


def outcome(measured: Measured, counts: Sequence[int], own: int | None = None) -> str:
    """Return what came out, in one sentence, and for whoever predicted a second one about that.

    Args:
        measured: of the lesson.
        counts: predictions of each block, block 0 first.
        own: the block that this student predicted; None for nobody's.
    """
    truth, metric = measured.setting.truth, measured.metric
    best = truth.best(truth.plans(1))
    level = sorted(block for (block,) in level_with_best(truth, 1))
    beside = ""
    if decided(truth, 1) is False:
        beside = ", but that is not decided: the blocks differ by no more than chance"
    elif level:
        beside = f", level within chance with {', '.join(map(str, level))}"
    votes = f"{counts[best[0]]} of {sum(counts)} predicted it"
    told = f"Block {best[0]} scored best ({shown(truth.mean(best), metric)}{beside}); {votes}."
    if own is None:
        return told
    if own == best[0]:
        return f"{told} So did you."
    lost = f"{regret(truth, (own,)).regret:.2f} less"
    if within_chance(truth, (own,)):
        return f"{told} Yours, block {own}, is level with it: {lost} is within chance."
    return f"{told} Yours, block {own}, scored {lost}."
