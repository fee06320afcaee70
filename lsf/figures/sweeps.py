"""Pictures of a sweep: the profile of single blocks, the triangle of runs of blocks, and need beside gain."""

from collections.abc import Mapping, Sequence

import pandas as pd

from lsf.criteria.agreement import chance_level, rank_correlation
from lsf.criteria.registry import CRITERIA
from lsf.evidence.real import RealTask
from lsf.evidence.regret import ROUNDING, Blocks, Truth, contributions
from lsf.evidence.study import decided, level_with_best
from lsf.figures.criteria import leaders
from lsf.figures.deviation import PATTERN
from lsf.figures.palette import (
    CHOSEN,
    FACTUAL,
    NEUTRAL,
    ROLES,
    SMALL_SIZE,
    UNCHOSEN,
    VIRTUAL,
    WITHOUT_LEGEND,
    Picture,
    new_figure,
    number,
    share,
)
from lsf.plans.plan import format_blocks

METRIC_WORDS = {"exact_match": "exact match", "loss": "loss (nats per token)"}
"""Metric -> how it is written on an axis."""


def as_metric(score: float, metric: str) -> float:
    """Return a truth's score as its metric is read: a loss the right way round."""
    return -score if metric == "loss" else score


def draw_regrets(regrets: Mapping[str, float], marked: str, controls: Sequence[str], beaten: int) -> Picture:
    """Draw what every way of choosing blocks lost on average, the least first; controls differ by colour and pattern.

    Args:
        regrets: way of choosing -> mean relative regret, a share of what the best plan gains over the floor.
        marked: the way that is recommended.
        controls: ways that look at nothing.
        beaten: how many of them lost more beyond chance.
    """
    order = sorted(regrets, key=lambda name: regrets[name])
    told = f"beyond chance less than {beaten} of {len(controls)} controls"
    title = f"{marked} lost {share(regrets[marked])}, {told}"
    figure = new_figure(title, height=96 + 21 * len(order), barmode="overlay")
    kinds = (("recommended", CHOSEN), ("criterion", UNCHOSEN), ("control", ROLES["random"]))
    for kind, mark in kinds:
        own = [name for name in order if kind == _kind(name, marked, controls)]
        figure.add_bar(
            x=[regrets[name] for name in own],
            y=own,
            orientation="h",
            name=kind,
            width=0.7,
            marker={"color": mark.color, "pattern": {**PATTERN, "shape": mark.pattern}},
            text=[share(regrets[name]) for name in own],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    figure.update_xaxes(title="mean relative regret; lower is better", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(categoryorder="array", categoryarray=order[::-1], showgrid=False, ticksuffix="  ")
    told = ", ".join(f"{name} {share(regrets[name])}" for name in order)
    rows = [
        {"way of choosing": n, "kind": _kind(n, marked, controls), "mean relative regret": regrets[n]} for n in order
    ]
    return Picture(figure, f"{title}: {told}.", pd.DataFrame(rows))


def _kind(name: str, marked: str, controls: Sequence[str]) -> str:
    return "recommended" if name == marked else "control" if name in controls else "criterion"


def draw_profile(
    truth: Truth,
    metric: str,
    marked: Mapping[str, Blocks] | None = None,
    beside: Mapping[str, float] | None = None,
) -> Picture:
    """Draw what tuning each block alone scored, with the standard deviation over seeds, beside base and full.

    Args:
        truth: of a sweep over single blocks.
        metric: exact_match or loss.
        marked: a word -> the single block it chose, written over its bar.
        beside: words -> another score, drawn as a line.
    """
    singles = sorted(blocks for blocks in truth.scores if len(blocks) == 1)
    best = truth.best(singles) if singles else None
    figure = new_figure(_profile_title(truth, best), height=360, barmode="overlay")
    words = _marks(marked or {})
    start = as_metric(truth.floor, metric) if metric == "loss" else 0.0  # losses are told from the floor, not from zero
    for mark, own in (
        (UNCHOSEN, [one for one in singles if one != best]),
        (CHOSEN, [one for one in singles if one == best]),
    ):
        figure.add_bar(
            x=[blocks[0] for blocks in own],
            y=[as_metric(truth.mean(blocks), metric) - start for blocks in own],
            base=start,
            customdata=[as_metric(truth.mean(blocks), metric) for blocks in own],
            error_y={
                "type": "data",
                "array": [truth.spread(blocks) for blocks in own],
                "thickness": 1.5,
                "visible": len(truth.full) > 1,
            },
            name="best block" if mark is CHOSEN else "other blocks",
            width=0.72,
            marker={
                "color": mark.color,
                "pattern": {"shape": mark.pattern, "fillmode": "overlay", "fgcolor": "#FFFFFF"},
            },
            text=[words.get(blocks, "") for blocks in own],
            textposition="inside",
            insidetextanchor="start",
            textfont={"color": "#FFFFFF"},
            hovertemplate="block %{x}: %{customdata:.3f}<extra></extra>",
        )
    for name, score, color, dash in _profile_lines(truth, beside or {}):
        figure.add_scatter(
            x=[-0.5, truth.n_blocks - 0.5],
            y=[as_metric(score, metric)] * 2,
            mode="lines",
            name=name,
            line={"color": color, "dash": dash, "width": 2},
            hovertemplate=name + ": %{y:.3f}<extra></extra>",
        )
    figure.update_xaxes(title="block tuned alone", tickvals=list(range(truth.n_blocks)), showgrid=False)
    figure.update_yaxes(title=METRIC_WORDS[metric], rangemode="normal" if metric == "loss" else "tozero")
    told = "".join(f" {name}: {_told(score, metric)}." for name, score in (beside or {}).items())
    return Picture(figure, f"{_profile_alt(truth, metric, best)}{told}", _profile_table(truth, metric))


def _profile_lines(truth: Truth, beside: Mapping[str, float]) -> list[tuple[str, float, str, str]]:
    """Return what blocks are compared with: words, score, colour and dash of a line each."""
    lines = [("full fine-tuning", truth.full_mean, VIRTUAL.color, "dash")]
    lines += [("base model", truth.base, NEUTRAL.color, "dot")]
    if truth.prior is not None and truth.prior > truth.base:
        lines += [("best answer without the prompt", truth.prior, NEUTRAL.color, "longdash")]
    return lines + [(name, score, FACTUAL.color, "dashdot") for name, score in beside.items()]


def _marks(marked: Mapping[str, Blocks]) -> dict[Blocks, str]:
    words: dict[Blocks, str] = {}
    for word, blocks in marked.items():
        words[blocks] = f"{words[blocks]}, {word}" if blocks in words else word
    return words


def _profile_title(truth: Truth, best: Blocks | None) -> str:
    if best is None:
        return "No single block is measured yet"
    if truth.missing and any(len(blocks) == 1 for blocks in truth.missing):
        return "Single blocks, not all of them measured yet"
    alone = [blocks for blocks in truth.scores if len(blocks) == 1]
    if len(alone) > 1 and not truth.differ(alone):
        return "Tuned alone, every block scored the same"
    if (sure := decided(truth, 1)) is None:
        beside = "with one seed" if len(truth.full) == 1 else "with seeds that do not differ"
        same = sorted(one[0] for one in alone if one != best and truth.mean(one) >= truth.mean(best) - ROUNDING)
        level = f"level with {_blocks(same)}, " if same else ""
        return f"Tuned alone, block {best[0]} scored best, {level}{beside}"
    level = sorted(block for (block,) in level_with_best(truth, 1))
    if not sure:
        beside = ": not decided, seeds differ as much"
    else:
        beside = f", no better than {_blocks(level)} beyond chance" if level else ""
    return f"Tuned alone, block {best[0]} scored best{beside}"


def _told(score: float, metric: str) -> str:
    return number(as_metric(score, metric), 3)


def _blocks(blocks: list[int]) -> str:
    return f"block{'s' if len(blocks) > 1 else ''} {format_blocks(blocks)}"


def _profile_alt(truth: Truth, metric: str, best: Blocks | None) -> str:
    if best is None:
        return "No single block is measured yet."
    singles = [blocks for blocks in truth.scores if len(blocks) == 1]
    worst = min(singles, key=truth.mean)
    full, known = truth.full_mean, truth.prior is not None and truth.prior > truth.base
    prior = f", the best answer without the prompt {_told(truth.floor, metric)}" if known else ""
    seeds = f"mean over {len(truth.full)} seeds" if len(truth.full) > 1 else "one seed"
    return (
        f"{METRIC_WORDS[metric].capitalize()} after tuning one block alone, {seeds}: best "
        f"block {best[0]} with {_told(truth.mean(best), metric)}, worst block {worst[0]} with "
        f"{_told(truth.mean(worst), metric)}; full fine-tuning {_told(full, metric)}, base model "
        f"{_told(truth.base, metric)}{prior}."
    )


def _profile_table(truth: Truth, metric: str) -> pd.DataFrame:
    rows = [
        {"block": block, "mean": as_metric(truth.mean((block,)), metric), "spread": truth.spread((block,))}
        if (block,) in truth.scores
        else {"block": block, "mean": None, "spread": None}
        for block in range(truth.n_blocks)
    ]
    return pd.DataFrame(rows)


def draw_triangle(truth: Truth, metric: str) -> Picture:
    """Draw the score of every measured run of neighbouring blocks: its first block across, its last block up.

    A cell nobody measured stays empty.
    """
    runs = {blocks: truth.mean(blocks) for blocks in truth.scores if blocks == tuple(range(blocks[0], blocks[-1] + 1))}
    every = range(truth.n_blocks)
    cells = [[runs.get(tuple(range(first, last + 1))) for first in every] for last in every]
    values = [[None if value is None else as_metric(value, metric) for value in row] for row in cells]
    best = truth.best(runs) if runs else None
    title = "No range is measured yet" if best is None else f"The best measured range is {_blocks(list(best))}"
    figure = new_figure(title, height=120 + 42 * truth.n_blocks, margin=WITHOUT_LEGEND)
    figure.add_heatmap(
        z=values,
        x=list(every),
        y=list(every),
        coloraxis="coloraxis",
        text=[["" if value is None else f"{value:.2f}" for value in row] for row in values],
        texttemplate="%{text}",
        textfont={"size": SMALL_SIZE},
        hovertemplate="blocks %{x} to %{y}: %{z:.3f}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
    )
    if best is not None:
        figure.add_scatter(
            x=[best[0]],
            y=[best[-1]],
            mode="markers",
            marker={"symbol": "square-open", "size": 30, "color": FACTUAL.color, "line": {"width": 3}},
            hoverinfo="skip",
            showlegend=False,
        )
    figure.update_layout(
        coloraxis={"colorbar": {"title": {"text": METRIC_WORDS[metric]}}, "reversescale": metric == "loss"}
    )
    figure.update_xaxes(title="first tuned block", tickvals=list(every), showgrid=False)
    figure.update_yaxes(title="last tuned block", tickvals=list(every), showgrid=False)
    table = pd.DataFrame(
        [
            {"first": blocks[0], "last": blocks[-1], "mean": as_metric(value, metric), "spread": truth.spread(blocks)}
            for blocks, value in sorted(runs.items())
        ]
    )
    return Picture(figure, _triangle_alt(truth, metric, runs, best), table)


def _triangle_alt(truth: Truth, metric: str, runs: Mapping[Blocks, float], best: Blocks | None) -> str:
    if best is None:
        return "No range of neighbouring blocks is measured yet."
    worst = min(runs, key=lambda blocks: runs[blocks])
    return (
        f"{METRIC_WORDS[metric].capitalize()} of {len(runs)} measured ranges of neighbours of {truth.n_blocks} blocks: "
        f"best {format_blocks(best)} with {_told(runs[best], metric)}, worst {format_blocks(worst)} with "
        f"{_told(runs[worst], metric)}. Framed: the best."
    )


def draw_sets(one: RealTask, criterion: str) -> Picture:
    """Draw every measured set of several blocks of a real model, a row each, the best on top.

    Args:
        one: a task whose sets were measured.
        criterion: whose choice of neighbours is marked.
    """
    sets, label = one.sets, CRITERIA[criterion].label
    if sets is None:
        raise ValueError(f"no sets of {one.task} were measured")
    known, named = one.measured(sets.budget), one.named(criterion, sets.budget)
    order = sorted(known, key=lambda blocks: (-known[blocks], blocks))
    order.sort(key=lambda blocks: format_blocks(blocks) in sets.stopped)
    kinds = {blocks: _set_kind(blocks, named, one) for blocks in order}
    title = f"Sets of {sets.budget} blocks: {label} lost {share(one.lost(named))}"
    if EVENLY in kinds.values():
        title += f", evenly spaced ones {share(one.lost(one.spaced(sets.budget)))}"
    title += f", sets at random {share(one.by_chance(sets.budget))}"
    figure = new_figure(title, height=120 + 13 * len(order))
    marks = {"named": CHOSEN, "neighbours": UNCHOSEN, "at random": ROLES["random"], EVENLY: ROLES["first"]}
    for kind, mark in marks.items():
        rows = [(row, blocks) for row, blocks in enumerate(order) if kinds[blocks] == kind]
        figure.add_scatter(
            x=[block for _, blocks in rows for block in blocks],
            y=[row for row, blocks in rows for _ in blocks],
            mode="markers",
            name=f"named by {label}" if kind == "named" else kind,
            marker={"color": mark.color, "symbol": mark.symbol, "size": 9},
            hovertext=[
                f"blocks {format_blocks(blocks)}: {_row_score(one, blocks)}" for _, blocks in rows for _ in blocks
            ],
            hoverinfo="text",
        )
    figure.update_xaxes(
        title="tuned blocks",
        tickvals=list(range(len(one.alone))),
        range=[-0.7, len(one.alone) - 0.3],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(
        title=METRIC_WORDS[one.metric],
        tickvals=list(range(len(order))),
        ticktext=[_row_score(one, blocks) for blocks in order],
        range=[len(order) - 0.5, -0.5],
    )
    measure = one.metric.replace("_", " ")
    table = pd.DataFrame(
        {"blocks": format_blocks(blocks), "kind": kinds[blocks], measure: sets.scores.get(format_blocks(blocks))}
        for blocks in order
    )
    best, worst = order[0], min(sets.scores, key=lambda plan: sets.scores[plan])
    alt = (
        f"{title}. Of {len(order)} sets, best blocks {format_blocks(best)} with {_row_score(one, best)}, worst "
        f"{worst} with {_told(sets.scores[worst], one.metric)}; {label} names {format_blocks(named)} with "
        f"{_row_score(one, named)}."
    )
    return Picture(figure, alt, table)


EVENLY = "evenly spaced"


def _set_kind(blocks: Blocks, named: Blocks, one: RealTask) -> str:
    if blocks == named or blocks in one.drawn:
        return "named" if blocks == named else "at random"
    return EVENLY if blocks == one.spaced(len(blocks)) else "neighbours"


def _row_score(one: RealTask, blocks: Blocks) -> str:
    plan = format_blocks(blocks)
    return "ended early" if one.sets is None or plan in one.sets.stopped else _told(one.sets.scores[plan], one.metric)


CONTRIBUTION = "contribution: share of full fine-tuning's gain"
Known = Sequence[float | None]


def measured_gain(truth: Truth, metric: str) -> tuple[tuple[float | None, ...], str]:
    """Return what tuning each block alone gained, block 0 first, and the words of that axis.

    The contribution where full fine-tuning gains more than it differs over seeds, else the gain over the base model in
    the metric's unit, and why.
    """
    if (shares := contributions(truth)) is not None:
        return shares, CONTRIBUTION
    alone = [(block,) for block in range(truth.n_blocks)]
    gains = tuple(truth.mean(one) - truth.base if one in truth.scores else None for one in alone)
    word = "loss below the base model's (nats per token)" if metric == "loss" else "exact match over the base model's"
    return gains, f"{word}; {_why_no_contribution(truth)}"


def _why_no_contribution(truth: Truth) -> str:
    if (spread := truth.full_spread) is None:
        return "one seed tells no contribution"
    if truth.base - truth.full_mean > max(spread, ROUNDING):
        return "full fine-tuning hurts here"
    return "full fine-tuning's change is within its seeds' spread"


def draw_need(need: Sequence[float], gain: Known, words: str, criterion: str | None = None) -> Picture:
    """Draw a map of the blocks: across, how much the model needs each; up, what tuning it gains.

    Args:
        need: the criterion `ablation`, nats, block 0 first.
        gain: what a sweep measured (`measured_gain`), or another criterion's scores; None where it is unknown.
        words: of the vertical axis.
        criterion: the criterion that `gain` is of; None where it was measured.
    """
    known = {block: value for block, value in enumerate(gain) if value is not None}
    lead = [list(known)[place] for place in leaders(list(known.values()))]
    what = CRITERIA[criterion].label if criterion else "gain"
    figure = new_figure(_need_title(need, known, what), height=420)
    for mark, name in ((UNCHOSEN, "other blocks"), (CHOSEN, f"first quarter by {what.lower()}")):
        own = [block for block in known if (block in lead) is (mark is CHOSEN)]
        figure.add_scatter(
            x=[need[block] for block in own],
            y=[known[block] for block in own],
            mode="markers+text",
            name=name,
            text=[str(block) for block in own],
            textposition="top center",
            textfont={"size": SMALL_SIZE},
            marker={"color": mark.color, "symbol": mark.symbol, "size": 10},
            hovertemplate="block %{text}: need %{x:.3g}, %{y:.3g}<extra></extra>",
        )
    figure.update_xaxes(title="need: rise of the loss without the block (nats)", zeroline=True)
    figure.update_yaxes(title=words.replace("; ", "<br>"), zeroline=True)
    table = pd.DataFrame({"block": range(len(need)), "need": list(need), what.lower(): list(gain)})
    return Picture(figure, _need_alt(need, known, what), table)


LAST_DIGITS = 1e-8
"""A correlation of exactly the size that chance reaches is within chance, whatever its last digits say."""


def _need_title(need: Sequence[float], known: Mapping[int, float], what: str) -> str:
    rho = rank_correlation([need[block] for block in known], list(known.values()))
    if rho is None:
        return f"Need and {what.lower()}: one of the two ranks no block"
    level = chance_level(len(known))
    if level is None or abs(rho) <= level + LAST_DIGITS:
        return f"Need does not predict {what.lower()}: Spearman's rho {number(rho)} is within chance"
    return f"Blocks that the model needs more have {'more' if rho > 0 else 'less'} {what.lower()}: rho {number(rho)}"


def _need_alt(need: Sequence[float], known: Mapping[int, float], what: str) -> str:
    title = f"{_need_title(need, known, what)}."
    if not known:
        return title
    most, best = max(known, key=lambda block: need[block]), max(known, key=lambda block: known[block])
    order = sorted(known, key=lambda block: -need[block])
    return (
        f"{title} Of {len(known)} blocks the model needs block {most} most ({number(need[most])} nats); block {best} "
        f"has the greatest {what.lower()} ({number(known[best])}) and is number {order.index(best) + 1} by need."
    )
