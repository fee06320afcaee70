"""What the committed runs of the sweep on a real model say: profiles, regret, placebo, stopped runs, bars; no torch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.real_plans import (
    BASE,
    BUDGET,
    CELLS,
    LORA,
    READINGS,
    SCORES,
    TASKS,
    WHOLE,
    Cell,
    Scored,
    depth_plans,
    read_lines,
    rules,
    size_of,
)
from benchmarks.real_sets import scattered, set_tries
from benchmarks.real_tries import rate_tries
from benchmarks.real_truth import (
    EXACT,
    LOOKED_AT,
    Truth,
    interval,
    planned_at,
    rates_of,
    recommended,
    regrets,
    tried_plan,
    truth_of,
    unmeasured,
)
from lsf.criteria.agreement import rank_correlation
from lsf.evidence.packed import gaining, packed_evidence
from lsf.evidence.study import DEPTHS, best_depth
from lsf.plans.plan import format_blocks
from lsf.plans.tries import DEPTHS as TRIED


def report(cells: Sequence[Cell] | None = None, scored: Sequence[Scored] | None = None, n_blocks: int = 30) -> str:
    """Return all tables as Markdown, from the committed lines where none are given; what is missing is said."""
    cells = read_lines(CELLS, Cell) if cells is None else cells
    scored = read_lines(SCORES, Scored) if scored is None else scored
    known = {task: truth_of(task, cells, scored, n_blocks) for task in TASKS}
    truths = [one for one in known.values() if one is not None]
    parts = [
        "### What is measured",
        "\n".join(_measured(known, scored)),
        "### Rates tried",
        "\n".join(_tried(cells)),
        "### Single blocks",
        "\n".join(_singles(truths)),
    ]
    losses = [truth_of(one.task, cells, scored, n_blocks, exact=()) for one in truths]
    by_loss = [one for one in losses if one is not None]
    for budget in (1, BUDGET):
        head = f"### Regret at {budget} of {n_blocks} blocks"
        parts += [head, "\n".join(_regrets(truths, cells, scored, budget))]
        parts += [f"{head}, all tasks by the loss", "\n".join(_regrets(by_loss, cells, scored, budget))]
    parts += ["### What trying costs at 1 block", "\n".join(_tries(truths, cells, scored))]
    for budget in (1, BUDGET):
        head = f"### Depth and rate at {budget} of {n_blocks} blocks: what the run loses that is made in the end"
        parts += [head, "\n".join(rate_tries(truths, cells, scored, budget))]
    parts += [f"### Scattered sets of {BUDGET} beside neighbours, by the loss", "\n".join(scattered(by_loss, scored))]
    for end, judged in (("", truths), (", all tasks by the loss", by_loss)):
        head = f"### Trying sets of {BUDGET} of {n_blocks} blocks{end}"
        parts += [head, "\n".join(set_tries(judged, cells, scored))]
    parts += ["### A rule chosen without the task it is judged on", "\n".join(_left_out(truths, scored))]
    parts += [
        "### Bars at 8 blocks",
        "\n".join(_bars(truths, scored)),
        "### Other sizes",
        "\n".join(_others(truths, scored)),
    ]
    return "\n\n".join(parts)


def _measured(known: Mapping[str, Truth | None], scored: Sequence[Scored]) -> Iterator[str]:
    yield "| task | plans measured | stopped half-way | missing | analyses | hours of runs |\n|---|---|---|---|---|---|"
    for task, truth in known.items():
        analyses = sum(one.task == task for one in scored)
        if truth is None:
            yield f"| {task} | none | | all | {analyses} of {2 * len(READINGS)} | |"
            continue
        hours = sum(truth.seconds[plan] * len(truth.scores[plan]) for plan in truth.scores) / 3600
        shown = ", ".join(truth.missing[:6]) + (f" and {len(truth.missing) - 6} more" if len(truth.missing) > 6 else "")
        lacking = f"{len(truth.missing)}: {shown}" if truth.missing else "none"
        row = f"| {task} | {len(truth.scores)} | {len(truth.stopped)} | {lacking} |"
        yield f"{row} {analyses} of {2 * len(READINGS)} | {hours:.1f} |"


def _tried(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield per task and size the rates its judges were tuned at, and whether the best is the least or the greatest."""
    yield "| task | size | rate: mean validation loss of the judges | taken | at an end of what was tried |"
    yield "|" + "---|" * 5
    for task in TASKS:
        own = [cell for cell in cells if cell.task == task and cell.plan != BASE and cell.seed == 0]
        for size, taken in rates_of(own).items():
            mine = [cell for cell in own if size_of(cell.plan) == size]
            judges = {cell.plan for cell in mine if cell.rate != taken} or {cell.plan for cell in mine}
            found = {
                rate: np.mean(
                    [
                        np.inf if c.validation is None else c.validation
                        for c in mine
                        if c.rate == rate and c.plan in judges
                    ]
                )
                for rate in sorted({cell.rate for cell in mine if cell.rate is not None})
            }
            shown = ", ".join(f"{rate:g}: {loss:.3f}" for rate, loss in found.items())
            end = "the least" if taken == min(found) else "the greatest" if taken == max(found) else "no"
            yield f"| {task} | {size} | {shown} | {taken:g} | {end if len(found) > 1 else 'one rate only'} |"


def _singles(truths: Sequence[Truth]) -> Iterator[str]:
    yield "| task | score | floor | base | whole model | LoRA | best alone | worst alone | C(b) from block 0 on |"
    yield "|" + "---|" * 9
    for truth in truths:
        alone = {int(plan): score for plan, score in truth.at(1).items()}
        if not alone:
            yield f"| {truth.task} | no single block yet |" + " |" * 7
            continue
        whole, lora = truth.of(WHOLE), truth.of(LORA)
        spread = np.std(truth.scores[WHOLE], ddof=1) if len(truth.scores.get(WHOLE, ())) > 1 else 0.0
        gain = None if whole is None else whole - truth.base
        profile = "full fine-tuning hurts here"
        if gain is None:
            profile = "the whole model is missing"
        elif gain > spread:
            shares = [f"{(alone[b] - truth.base) / gain:.2f}" if b in alone else "-" for b in range(truth.n_blocks)]
            profile = " ".join(shares)
        best, worst = max(alone, key=lambda b: (alone[b], b)), min(alone, key=lambda b: alone[b])
        what = "exact match" if truth.task in EXACT else "minus nats"
        shown = " | ".join(_number(value) for value in (truth.floor, truth.base, whole, lora))
        ends = f"{best} ({_number(alone[best])}) | {worst} ({_number(alone[worst])})"
        yield f"| {truth.task} | {what} | {shown} | {ends} | {profile} |"


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.3f}"


def _regrets(truths: Sequence[Truth], cells: Sequence[Cell], scored: Sequence[Scored], budget: int) -> Iterator[str]:
    found = {truth.task: regrets(truth, scored, budget) for truth in truths}
    small = best_depth(gaining(packed_evidence()))
    whole = [truth for truth in truths if found[truth.task]]
    for words, lost in fixed_depths(whole, 1.0 if small is None else small, budget).items():
        for task, value in lost.items():
            found[task][words] = value
    for truth in whole:
        tried = tried_plan(truth, [cell for cell in cells if cell.task == truth.task], budget)
        if (lost := truth.regret(tried)) is not None:
            found[truth.task][TRIES] = lost
    for truth in truths:
        if lacking := unmeasured(truth, [one for one in scored if one.task == truth.task], budget):
            yield f"{truth.task}: {len(lacking)} plans to be measured before there is a regret\n"
    judged = [task for task in found if task != LOOKED_AT]
    own = recommended(budget)
    yield "| way of choosing | mean but TREC | more than the recommendation | " + " | ".join(found) + " | rho |"
    yield "|" + "---|" * (len(found) + 4)
    names = [*dict.fromkeys(name for one in found.values() for name in one)]
    means = {name: [found[task][name] for task in judged if name in found[task]] for name in names}
    for name in sorted(names, key=lambda name: (-len(means[name]), np.mean(means[name] or [np.inf]))):
        beside = [found[task][name] - found[task][own] for task in judged if {name, own} <= set(found[task])]
        mean = f"{np.mean(means[name]):.1%} of {len(means[name])} tasks" if means[name] else "-"
        per_task = " | ".join(f"{found[task][name]:.1%}" if name in found[task] else "-" for task in found)
        rho = _rho(truths, scored, name) if budget == 1 else ""
        yield f"| {name} | {mean} | {interval(beside) if beside else '-'} | {per_task} | {rho} |"


TRIES = f"tried: least validation loss half-way of neighbours at {len(TRIED)} depths"
SMALL, OTHERS = "neighbours at the depth best on the small models", "neighbours at the depth best on the other tasks"


def fixed_depths(truths: Sequence[Truth], small: float, budget: int) -> dict[str, dict[str, float]]:
    """Return what choices lose that measure nothing on a task: words -> task -> regret.

    Args:
        truths: of tasks whose plans of the budget are all measured.
        small: relative depth that lost least in the study of small models.
        budget: number of blocks; of several, windows at `STRIDE` are measured.
    """
    lost = {
        truth.task: {depth: truth.regret(planned_at(depth, budget, truth.n_blocks)) for depth in DEPTHS}
        for truth in truths
    }
    found: dict[str, dict[str, float]] = {SMALL: {}, OTHERS: {}}
    for task, own in lost.items():
        others = [known for name, known in lost.items() if name not in (task, LOOKED_AT)]
        means = {depth: float(np.mean([known[depth] or 0.0 for known in others])) for depth in DEPTHS if others}
        chosen = min(means, key=lambda depth: (means[depth], -depth), default=None)
        for words, depth in ((SMALL, small), (OTHERS, chosen)):
            if depth is not None and (value := own[depth]) is not None:
                found[words][task] = value
    return found


def _rho(truths: Sequence[Truth], scored: Sequence[Scored], name: str) -> str:
    """Return the mean over tasks of a criterion's rank correlation with the truth of single blocks."""
    found = []
    for truth in truths:
        alone = [truth.of(str(block)) for block in range(truth.n_blocks)]
        for one in scored:
            end = f", {one.reading}" + (" (placebo)" if one.placebo else "")
            scores = one.scores.get(name.removesuffix(end)) if name.endswith(end) and one.task == truth.task else None
            found.append(None if scores is None else rank_correlation(scores, alone))
    known = [rho for rho in found if rho is not None]
    return f"{np.mean(known):.2f}" if known else "-"


def _left_out(truths: Sequence[Truth], scored: Sequence[Scored]) -> Iterator[str]:
    """Choose the way of least mean regret on all tasks but one, placebos and hindsight left out, and judge it there."""
    yield "| budget | left out | chosen by the others | its regret there | today's recommendation |"
    yield "|---|---|---|---|---|"
    for budget in (1, BUDGET):
        found = {t.task: regrets(t, scored, budget) for t in truths if t.task != LOOKED_AT}
        for task, own in found.items():
            others = [one for name, one in found.items() if name != task]
            shared = set(own).intersection(*others) if others else set()
            shared -= {name for name in shared if "placebo" in name or name == "at random"}
            if not shared:
                yield f"| {budget} | {task} | nothing is known on all tasks yet | | |"
                continue
            best = min(sorted(shared), key=lambda name: np.mean([one[name] for one in others]))
            beside = own.get(recommended(budget))
            told = "missing" if beside is None else f"{beside:.1%}"
            yield f"| {budget} | {task} | {best} | {own[best]:.1%} | {told} |"


def _tries(truths: Sequence[Truth], cells: Sequence[Cell], scored: Sequence[Scored]) -> Iterator[str]:
    """Yield what half of the runs tried cost, and how much less trying lost than chance and the recommendation."""
    yield "| task | taken | CPU seconds of the tries / of the run they serve | / of the whole model's | lost |"
    yield "|---|---|---|---|---|"
    beside: dict[str, list[float]] = {"at random": [], recommended(1): []}
    for truth in truths:
        if not (known := regrets(truth, scored, 1)):
            continue
        plan = tried_plan(truth, [cell for cell in cells if cell.task == truth.task], 1)
        spent = sum(truth.seconds[planned_at(depth, 1, truth.n_blocks)] for depth in TRIED) / 2
        lost = truth.regret(plan) or 0.0
        shares = f"{spent / truth.seconds[plan]:.1f} | {spent / truth.seconds[WHOLE]:.2f}"
        yield f"| {truth.task} | {plan} | {shares} | {lost:.1%} |"
        if truth.task != LOOKED_AT:
            for name, values in beside.items():
                values.append(known[name] - lost)
    for name, values in beside.items():
        if values:
            yield f"\n{name} lost more than trying: {interval(values)}"


def _bars(truths: Sequence[Truth], scored: Sequence[Scored]) -> Iterator[str]:
    """What the rule's neighbours and evenly spaced blocks kept and lost, per task."""
    yield "| task | plan | gain over the floor / the best's (0.95 or more) | forgotten / the whole's (0.5 or less) |"
    yield "|---|---|---|---|"
    for truth in truths:
        mine = [one for one in scored if one.task == truth.task and not one.placebo and one.reading == READINGS[0]]
        named = rules(mine, truth.n_blocks).get(f"{BUDGET}: {recommended(BUDGET)}")
        whole = not unmeasured(truth, [one for one in scored if one.task == truth.task], BUDGET)
        if named is None or not whole or WHOLE not in truth.forgotten:
            yield f"| {truth.task} | missing | | |"
            continue
        best, all_of = max(truth.at(BUDGET).values()), truth.forgotten[WHOLE]
        for words, blocks in (("", named), (", evenly spaced", depth_plans(truth.n_blocks)["evenly spaced"])):
            plan = format_blocks(blocks)
            score = truth.of(plan)
            kept = (score - truth.floor) / (best - truth.floor) if score is not None and best > truth.floor else np.nan
            lost = truth.forgotten.get(plan, np.nan) / all_of if all_of > 0 else np.nan
            yield f"| {truth.task} | {plan}{words} | {kept:.2f} | {lost:.2f} |"


def _others(truths: Sequence[Truth], scored: Sequence[Scored]) -> Iterator[str]:
    """Rules that others published with a size of their own, beside the best plan of 8 blocks and the whole model."""
    yield "| task | middle 20 to 80 % | upper half by gradient norm | whole model | best of 8 blocks |"
    yield "|---|---|---|---|---|"
    for truth in truths:
        wide = format_blocks(depth_plans(truth.n_blocks)["middle 20 to 80 %"])
        mine = [one for one in scored if one.task == truth.task]
        named = rules(mine, truth.n_blocks)
        half: Any = named.get(f"half: gradient_norm, {READINGS[0]}")
        shown = [truth.of(wide), truth.of(format_blocks(half)) if half else None, truth.of(WHOLE)]
        shown.append(None if unmeasured(truth, mine, BUDGET) else max(truth.at(BUDGET).values()))
        yield f"| {truth.task} | " + " | ".join(_number(value) for value in shown) + " |"
