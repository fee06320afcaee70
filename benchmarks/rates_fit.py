"""The default rate as a function: fitted on every best rate measured, judged on the model left out; no torch."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from lsf.methods.optimization import LAWS, WIDTH, Tuned, default_rate, spread_of

CELLS = Path(__file__).with_name("rates_cells.jsonl")
REAL = "smollm2"
PRIORS = {"facts": 3.178, "aliases": 4.070, "labels": 1.170, "sums": 3.373, "dialect": 8.527, "twohop": 12.867}
"""Of the lessons' validation rows, nats per token (`lsf.data.report`): the committed searches of sweeps did not keep
it."""
KEPT_GAIN = 0.05
"""Share of the best rate's gain that a smaller rate may lose and still be called the best: it forgets less."""


def read_cells() -> list[dict[str, Any]]:
    """Return every record of the file."""
    if not CELLS.exists():
        return []
    return [json.loads(line) for line in CELLS.read_text(encoding="utf-8").splitlines() if line.strip()]


@dataclass(frozen=True)
class Point:
    """One plan on one task, tried at several rates."""

    model: str
    """Left out together with its other points when the function is judged."""
    name: str
    """Task and place."""
    method: str
    """Key in CATALOGUE."""
    width: int
    """d of the model."""
    blocks: int
    """Blocks tuned."""
    share: float
    """Share of the model's blocks tuned."""
    losses: dict[float, float]
    """Rate -> validation loss, infinite where it diverged."""
    floor: float | None
    """In nats; None where the prior was not measured."""
    spread: float = 1.0
    """Of did and said sqrt(D / (d T))."""

    @property
    def best(self) -> float:
        """The smallest rate tried that keeps 95 % of the best one's gain; where no gain is known that of least loss.

        The latter is the lowest point of a parabola through the rate of the least loss and its neighbours.
        """
        if self.lost(1.0) is not None:
            return min(rate for rate in self.losses if (self.lost(rate) or 0.0) <= KEPT_GAIN)
        rates = sorted(self.losses)
        place = min(range(len(rates)), key=lambda rung: self.losses[rates[rung]])
        around = rates[max(0, place - 1) : place + 2]
        if len(around) < 3 or not all(math.isfinite(self.losses[rate]) for rate in around):
            return rates[place]
        curve = np.polyfit([math.log(rate) for rate in around], [self.losses[rate] for rate in around], 2)
        return math.exp(-curve[1] / (2 * curve[0])) if curve[0] > 1e-9 else rates[place]

    def lost(self, rate: float) -> float | None:
        """Return the share of the best tried rate's gain over the floor that a rate loses, 1 at the most.

        Losses are interpolated over log rate; beyond the rates tried the outermost one's is taken, which is the least
        that can be said. None without a floor or a gain.
        """
        best = min(self.losses.values())
        if self.floor is None or best >= self.floor:
            return None
        rates = sorted(rate for rate in self.losses if math.isfinite(self.losses[rate]))
        loss = float(np.interp(math.log(rate), np.log(rates), [self.losses[one] for one in rates]))
        return min(1.0, (loss - best) / (self.floor - best))


def points() -> list[Point]:
    """Return everything measured: our cells, those of the real model, and the committed searches of sweeps."""
    return [*_from_cells(), *_from_real(), *_from_evidence()]


def _from_cells() -> Iterator[Point]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in read_cells():
        same = cell["model"], cell["task"], cell["n_tuned_blocks"], cell["method"]  # of 5 blocks a window is one block
        groups.setdefault(same, []).append(cell)
    for (model, task, _, method), own in groups.items():
        one = own[0]
        whole, count = one["place"] == "whole", one["n_tuned_blocks"]
        share = 1.0 if whole else count / one["n_blocks"]
        spread = spread_of(200, one["planned"], one["tensors"]) if LAWS[method].projected else 1.0
        losses = {cell["rate"]: math.inf if cell["loss"] is None else cell["loss"] for cell in own}
        if len(losses) >= 3:
            name = f"{task} {one['place']}"
            yield Point(model, name, method, one["width"], count, share, losses, one["floor"], spread)


def _from_real() -> Iterator[Point]:
    file = CELLS.with_name("real_cells.jsonl")
    cells = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    base = {cell["task"]: cell for cell in cells if cell["place"] == "base"}
    blocks = {"whole": 30, "quarter": 8, "one": 1, "lora": 30}
    for task, place in dict.fromkeys((cell["task"], cell["place"]) for cell in cells if cell["place"] != "base"):
        own = [cell for cell in cells if (cell["task"], cell["place"]) == (task, place)]
        losses = {cell["learning_rate"]: math.inf if cell["loss"] is None else cell["loss"] for cell in own}
        if len(losses) >= 3:  # judged on its test rows, of which there are more
            floor = min(base[task]["loss"], base[task]["prior_loss"]) if task in base else None
            method = "lora" if place == "lora" else "full"
            count = blocks[place]
            yield Point(REAL, f"{task} {place}", method, 576, count, count / 30, losses, floor)


def _from_evidence() -> Iterator[Point]:
    for file in sorted(CELLS.with_name("evidence").glob("*-*.json")):
        model, _, task = file.stem.partition("-")
        if model in ("bundled", "stories260K", "babyllama105"):  # measured here; the latter two under old tokenising
            continue
        sweep = json.loads(file.read_text(encoding="utf-8"))["sweep"]
        blocks = {cell["plan"]: len(cell["blocks"]) for cell in sweep["cells"]}
        for plan, rate in sweep["rates"].items():
            losses = {tried: math.inf if loss is None else loss for tried, loss in rate["tried"]}
            if len(losses) >= 3:
                width = {"gpt2x12": 96, "narrow12": 80, "gpt2x8": 112, "wide6": 160}.get(model, 128)
                count = sweep["n_blocks"] if plan == "full" else blocks[plan]
                share = count / sweep["n_blocks"]
                base = next(cell["after"]["loss"] for cell in sweep["cells"] if cell["plan"] == "base")
                floor = min(PRIORS[task], base)
                yield Point(model, f"{task} {plan}", "full", width, count, share, losses, floor)


@dataclass(frozen=True)
class Form:
    """A form of the function: a per method, and what else is fitted."""

    by_width: float | None
    """b; None is fitted."""
    by_size: float | None
    """c; None is fitted."""
    size: Callable[[Point], float]
    """What c is the exponent of."""


def _share(point: Point) -> float:
    return point.share


def _blocks(point: Point) -> float:
    return float(point.blocks)


FORMS = {
    "A": Form(0.0, 0.0, _share),
    "B": Form(-1.0, None, _share),
    "C": Form(-0.5, None, _share),
    "D": Form(None, None, _share),
    "E": Form(-1.0, None, _blocks),
    "F": Form(None, None, _blocks),
}


@dataclass(frozen=True)
class Fitted:
    """One form of the function, fitted."""

    form: Form
    """Which."""
    rates: dict[str, float]
    """a of each method, as a rate."""
    by_width: float
    """b."""
    by_size: float
    """c."""

    def rate(self, point: Point) -> float:
        """Return the rate it predicts."""
        size = point.spread if LAWS[point.method].projected else self.form.size(point) ** self.by_size
        return self.rates[point.method] * (point.width / WIDTH) ** self.by_width * size


def fit(known: Sequence[Point], form: Form) -> Fitted:
    """Fit a per method, and b and c where they are free, on the logarithms of the best rates.

    Each pair of model and method weighs the same, however many tasks it has.
    """
    methods = list(dict.fromkeys(point.method for point in known))
    kinds = [(point.model, point.method) for point in known]
    rows, wanted = [], []
    for point, kind in zip(known, kinds, strict=True):
        weight = math.sqrt(1.0 / kinds.count(kind))
        projected = LAWS[point.method].projected
        width, size = math.log(point.width / WIDTH), 0.0 if projected else math.log(form.size(point))
        held = math.log(point.spread) + (form.by_width or 0.0) * width + (form.by_size or 0.0) * size
        row = [float(point.method == method) for method in methods]
        row += [width] if form.by_width is None else []
        row += [size] if form.by_size is None else []
        rows.append([weight * value for value in row])
        wanted.append(weight * (math.log(point.best) - held))
    found = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0].tolist()
    rates = {method: math.exp(found.pop(0)) for method in methods}
    width = found.pop(0) if form.by_width is None else form.by_width
    return Fitted(form, rates, width, found.pop(0) if form.by_size is None else form.by_size)


def left_out(known: Sequence[Point], form: Form) -> dict[str, tuple[float | None, float, int]]:
    """Return model -> mean share of the gain lost, mean factor from the best rate and points, fitted without the model.

    Methods that no other model was tuned by are left out.
    """
    found: dict[str, tuple[float | None, float, int]] = {}
    for model in dict.fromkeys(point.model for point in known):
        others = [point for point in known if point.model != model]
        fitted = fit(others, form)
        own = [point for point in known if point.model == model and point.method in fitted.rates]
        if own:
            lost = [value for point in own if (value := point.lost(fitted.rate(point))) is not None]
            apart = [abs(math.log(fitted.rate(point) / point.best)) for point in own]
            found[model] = mean(lost) if lost else None, math.exp(mean(apart)), len(own)
    return found


def report() -> None:
    """Print the forms, judged leaving one model out, and what the committed function does at every point."""
    known = points()
    print(
        "| form | b | c | mean share of gain lost | mean factor from the best rate | by model: lost, factor, points |"
    )
    print("|---|---|---|---|---|---|")
    for name, form in FORMS.items():
        whole, judged = fit(known, form), left_out(known, form)
        lost = mean(value for value, _, _ in judged.values() if value is not None)
        apart = math.exp(mean(math.log(factor) for _, factor, _ in judged.values()))
        each = "; ".join(
            f"{model} {'-' if value is None else f'{value:.2f}'}, {factor:.1f}x, {count}"
            for model, (value, factor, count) in judged.items()
        )
        print(f"| {name} | {whole.by_width:.2f} | {whole.by_size:.2f} | {lost:.3f} | {apart:.2f} | {each} |")
        print("  " + ", ".join(f"{method} {rate:.2g}" for method, rate in whole.rates.items()), file=sys.stderr)
    print("\n| model | task and place | method | default | best | share of gain lost |\n|---|---|---|---|---|---|")
    for point in known:
        if point.floor is not None:
            tuned = Tuned(point.width, 0, point.share, point.spread)
            rate = default_rate(point.method, tuned)
            lost = point.lost(rate)
            told = "no gain at any rate" if lost is None else f"{lost:.2f}"
            print(f"| {point.model} | {point.name} | {point.method} | {rate:g} | {point.best:.2g} | {told} |")
