"""What the committed runs of the sweep on a real model say: profiles, regret, placebo, stopped runs, bars; no torch."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.real_plans import (
    BASE,
    BUDGET,
    CELLS,
    LORA,
    RANDOM_SETS,
    READINGS,
    SCORES,
    SEEDS,
    STRIDE,
    TASKS,
    WHOLE,
    Cell,
    Scored,
    blocks_of,
    depth_plans,
    plans_of,
    read_lines,
    rules,
    seeds_of,
    size_of,
)
from lsf.criteria.agreement import rank_correlation
from lsf.evidence.packed import gaining, packed_evidence
from lsf.evidence.study import DEPTHS, best_depth
from lsf.plans.plan import format_blocks
from lsf.plans.policies import RECOMMENDED
from lsf.plans.tries import DEPTHS as TRIED

EXACT = ("trec", "sst2", "facts")
"""Tasks of short answers, judged by exact match; the others by the loss."""
LOOKED_AT = "trec"
"""The task that a first look was taken at: reported apart."""


@dataclass(frozen=True)
class Truth:
    """What was measured on one task, as scores of which the higher is the better."""

    task: str
    """One of `TASKS`."""
    base: float
    """Of the base model."""
    floor: float
    """The better of the base model and the prior."""
    scores: Mapping[str, tuple[float, ...]]
    """Plan -> score per seed, at the rate of its size."""
    forgotten: Mapping[str, float]
    """Plan -> nats per token forgotten, mean over seeds."""
    seconds: Mapping[str, float]
    """Plan -> seconds of a run, mean over seeds."""
    stopped: tuple[str, ...]
    """Plans that were hopeless and ended half-way."""
    missing: tuple[str, ...]
    """Plans that are asked for and lack one of the first seeds."""
    n_blocks: int
    """L."""

    def of(self, plan: str) -> float | None:
        """Return a plan's mean score; a stopped one takes the worst measured of its size; None where it is unknown."""
        if plan in self.scores:
            return float(np.mean(self.scores[plan]))
        known = self.at(len(blocks_of(plan))) if plan in self.stopped else {}
        return min(known.values(), default=None)

    def at(self, budget: int) -> dict[str, float]:
        """Return plan -> mean score of those of a budget that were measured to their end."""
        return {plan: float(np.mean(own)) for plan, own in self.scores.items() if size_of(plan) == str(budget)}

    def regret(self, plan: str) -> float | None:
        """Return (best of the budget - the plan's score) / (best of all - floor); None where something is unknown.

        METHOD's regret: full fine-tuning may end below the base model, and most of any gain is learning the format.
        """
        score, top = self.of(plan), max((float(np.mean(own)) for own in self.scores.values()), default=self.floor)
        if score is None or top <= self.floor:
            return None
        return (max(self.at(len(blocks_of(plan))).values()) - score) / (top - self.floor)

    def mean_regret(self, plans: Sequence[str]) -> float | None:
        """Return the mean regret of several plans; None where one is unknown."""
        found = [self.regret(plan) for plan in plans]
        return None if None in found or not found else float(np.mean([one for one in found if one is not None]))


def truth_of(
    task: str, cells: Sequence[Cell], scored: Sequence[Scored], n_blocks: int, exact: Sequence[str] = EXACT
) -> Truth | None:
    """Read one task's cells; None where the base model is missing.

    Tasks named in `exact` are judged by exact match, the others by the loss. The rate
    of a size is that of the cells of seed 0 that most of its plans have: the others were tried by judges only. Seeds
    count for a size once all its plans were tuned under them: until then some plans would be means over more seeds.
    """
    own = [cell for cell in cells if cell.task == task]
    base = next((cell for cell in own if cell.plan == BASE), None)
    if base is None or base.prior is None:
        return None
    general = {cell.text: cell.general or 0.0 for cell in own if cell.plan == BASE}
    mine = [one for one in scored if one.task == task]
    asked = plans_of(mine, n_blocks)
    rates = rates_of(own)
    taken = [cell for cell in own if cell.plan != BASE and rates[size_of(cell.plan)] == cell.rate]
    tried = {(cell.plan, cell.seed) for cell in taken}
    lacking = {(plan, seed) for plan in asked for seed in seeds_of(plan, mine, n_blocks) if (plan, seed) not in tried}
    begun = {(size_of(plan), seed) for plan, seed in lacking if seed != SEEDS[0]}
    taken = [cell for cell in taken if (size_of(cell.plan), cell.seed) not in begun]
    plans = [*dict.fromkeys(cell.plan for cell in taken)]
    scores, forgotten, seconds = dict[str, tuple[float, ...]](), dict[str, float](), dict[str, float]()
    for plan in plans:
        ended = [cell for cell in taken if cell.plan == plan and cell.loss is not None]
        if ended:
            scores[plan] = tuple(_score(cell, task in exact) for cell in ended)
            forgotten[plan] = float(
                np.mean([(cell.general or np.inf) - general.get(cell.text, math.nan) for cell in ended])
            )
            seconds[plan] = float(np.mean([cell.seconds for cell in ended]))
    stopped = tuple(plan for plan in plans if plan not in scores and any(c.stopped for c in taken if c.plan == plan))
    missing = tuple(plan for plan in asked if any(plan == lacked for lacked, _ in lacking))
    prior = base.prior[1] if task in exact else -base.prior[0]
    at_base = _score(base, task in exact)
    floor = max(at_base, prior)
    return Truth(task, at_base, floor, scores, forgotten, seconds, stopped, missing, n_blocks)


def rates_of(own: Sequence[Cell]) -> dict[str, float | None]:
    """Return size -> the rate that its plans share: that of most of its cells, of several the one that judges chose."""
    counts: dict[str, dict[float | None, tuple[int, float]]] = {}
    for cell in own:
        if cell.plan != BASE:
            rates = counts.setdefault(size_of(cell.plan), {})
            n, total = rates.get(cell.rate, (0, 0.0))
            rates[cell.rate] = n + 1, total + (np.inf if cell.validation is None else cell.validation)
    return {
        size: max(rates, key=lambda rate: (rates[rate][0], -rates[rate][1] / rates[rate][0]))
        for size, rates in counts.items()
    }


def half_way(own: Sequence[Cell]) -> dict[str, float]:
    """Return plan -> validation loss after half of the steps, under the first seed and at the rate of its size."""
    rates = rates_of(own)
    taken = [
        cell for cell in own if cell.plan != BASE and cell.seed == SEEDS[0] and rates[size_of(cell.plan)] == cell.rate
    ]
    return {cell.plan: cell.half_way for cell in taken if cell.half_way is not None}


def tried_plan(truth: Truth, own: Sequence[Cell], budget: int) -> str:
    """Return what trying takes: of neighbours at the depths tried, those of the least validation loss half-way.

    Args:
        truth: of the task.
        own: its cells.
        budget: number of blocks, of which every run of neighbours is measured.
    """
    read, plans = half_way(own), [_window(depth, budget, truth.n_blocks) for depth in TRIED]
    return min(plans, key=lambda plan: (read.get(plan, np.inf), -blocks_of(plan)[0]))


def _score(cell: Cell, exact: bool) -> float:
    return (cell.exact_match or 0.0) if exact else -(cell.loss if cell.loss is not None else np.inf)


def interval(differences: Sequence[float]) -> str:
    """Write a mean with its 95 % interval over tasks (Student's t)."""
    mean = float(np.mean(differences))
    if len(differences) < 2:
        return f"{mean:.1%} (one task)"
    half = stats.t.ppf(0.975, len(differences) - 1) * np.std(differences, ddof=1) / len(differences) ** 0.5
    return f"{mean:.1%} ({mean - half:.1%} to {mean + half:.1%})"


def regrets(truth: Truth, scored: Sequence[Scored], budget: int) -> dict[str, float]:
    """Return words of a way of choosing -> its regret on one task at a budget.

    Empty until the whole model, LoRA and every plan of the budget are measured: the best of some is not the best.
    """
    head, mine = f"{budget}: ", [one for one in scored if one.task == truth.task]
    if unmeasured(truth, mine, budget):
        return {}
    named = rules(mine, truth.n_blocks)
    ways = {name.removeprefix(head): [format_blocks(blocks)] for name, blocks in named.items() if name.startswith(head)}
    if budget == 1:
        middle = truth.n_blocks // 2
        ways |= {"first": ["0"], "middle": [str(middle)], "last": [str(truth.n_blocks - 1)]}
        ways["at random"] = [str(block) for block in range(truth.n_blocks)]
    else:
        fixed = {name: format_blocks(blocks) for name, blocks in depth_plans(truth.n_blocks).items()}
        ways |= {name: [fixed[name]] for name in ("first", "middle", "last")}
        ways["at random"] = [fixed[f"random {number}"] for number in range(RANDOM_SETS)]
    found = {name: truth.mean_regret(plans) for name, plans in ways.items()}
    return {name: lost for name, lost in found.items() if lost is not None}


def unmeasured(truth: Truth, scored: Sequence[Scored], budget: int) -> list[str]:
    """Return the plans of a budget, with the whole model and LoRA, of which no run is known.

    Args:
        truth: of one task.
        scored: of the same task; a task without is not measured.
        budget: number of blocks.
    """
    sizes, known = (WHOLE, LORA, str(budget)), {*truth.scores, *truth.stopped}
    wanted = [plan for plan in plans_of(scored, truth.n_blocks) if size_of(plan) in sizes]
    return [plan for plan in wanted if plan not in known]


def recommended(budget: int) -> str:
    """Return the words of today's recommendation among the ways of choosing."""
    return f"{RECOMMENDED[0]}, {READINGS[0]}" if budget == 1 else f"{RECOMMENDED[0]}, neighbours, {READINGS[0]}"


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
        truth.task: {depth: truth.regret(_window(depth, budget, truth.n_blocks)) for depth in DEPTHS}
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


def _window(depth: float, budget: int, n_blocks: int) -> str:
    stride = STRIDE if budget > 1 else 1
    start = stride * math.floor(depth * (n_blocks - budget) / stride + 0.5)
    return format_blocks(range(start, start + budget))


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


def _bars(truths: Sequence[Truth], scored: Sequence[Scored]) -> Iterator[str]:
    yield "| task | plan | gain over the floor / the best's (0.95 or more) | forgotten / the whole's (0.5 or less) |"
    yield "|---|---|---|---|"
    for truth in truths:
        mine = [one for one in scored if one.task == truth.task and not one.placebo and one.reading == READINGS[0]]
        named = rules(mine, truth.n_blocks).get(f"{BUDGET}: {recommended(BUDGET)}")
        whole = not unmeasured(truth, [one for one in scored if one.task == truth.task], BUDGET)
        score = truth.of(format_blocks(named)) if named is not None and whole else None
        if named is None or score is None or WHOLE not in truth.forgotten:
            yield f"| {truth.task} | missing | | |"
            continue
        plan, best = format_blocks(named), max(truth.at(BUDGET).values())
        kept = (score - truth.floor) / (best - truth.floor) if best > truth.floor else np.nan
        lost, all_of = truth.forgotten.get(plan, np.nan), truth.forgotten[WHOLE]
        yield f"| {truth.task} | {plan} | {kept:.2f} | {lost / all_of if all_of > 0 else np.nan:.2f} |"


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
