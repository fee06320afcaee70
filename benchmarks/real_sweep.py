"""The truth per block of a real model: every block alone, windows and sets of 8, on six tasks of SmolLM2-135M.

`python benchmarks/evidence.py --real --model FOLDER [--tasks sst2,...] [--seconds 600]` measures what is missing, one
line of real_sweep.jsonl per run and of real_scores.jsonl per analysis, and can be ended and started at any time;
`--facts` first finds the facts that the model knows; `--real --report` prints what the committed lines say. What is
measured and how it is judged was announced in docs/findings/2026-11-29-real-sweeps-announced.md.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real import finite
from benchmarks.real_tasks import KNOWN, LENGTH, SWEPT, TEST, real_task, shuffled
from lsf.criteria.agreement import top_k
from lsf.criteria.registry import CRITERIA
from lsf.data.task import Task
from lsf.plans.plan import Plan, format_blocks, full_plan
from lsf.plans.policies import suffix, window

CELLS = Path(__file__).with_name("real_sweep.jsonl")
SCORES = CELLS.with_name("real_scores.jsonl")
TRAIN, PASSES, BATCH, VALIDATION = 96, 3, 8, 48
"""Training rows, how often each is seen, rows of a step, and rows that find the rate and end hopeless runs."""
ALL_ROWS = {"facts": 160}
"""Tasks with more training rows: those that test what was trained, in few tokens."""
BUDGET, STRIDE, RANDOM_SETS, SEEDS = 8, 2, 20, (0, 1)
"""Blocks of a set; between the starts of windows; sets drawn at random; data orders (a third where plans are near)."""
JUDGES = 5
"""Plans of a size, spread over the depth, that find the rate all plans of that size take."""
FACTORS = (1.0, 0.5, 2.0)
"""Rates tried, over the default one of the size."""
MOST_RATES = 8
"""Rates that a control's search may be widened to."""
LEAST_KNOWN, SPREADS = 8, 2.0
"""A window or random set is hopeless where its validation loss half-way exceeds the median of at least so many plans of
its size, at the same place under the same seed, by so many interquartile ranges of theirs."""
TEXTS = 16
"""Texts in the base model's own words that forgetting is read on."""
WHOLE, LORA, BASE = "full", "lora", "base"
READINGS = ("lens",)
TOO_DEAR = ("runs",)
"""Needs of criteria that are not compared."""


@dataclass(frozen=True)
class Cell:
    """One run."""

    task: str
    """One of `SWEPT`."""
    plan: str
    """Tuned blocks as ranges, or `full`, `lora`, `base`."""
    seed: int
    """Of the data order."""
    rate: float | None
    """AdamW's peak rate; None of the base model."""
    loss: float | None
    """Test, nats per completion token; None where it diverged or was stopped."""
    exact_match: float | None
    """Share of test rows."""
    validation: float | None
    """Nats per completion token on the validation rows at the end; None where it diverged or was stopped."""
    half_way: float | None
    """The same after half of the steps; None of the base model."""
    general: float | None
    """Nats per token on the base model's own text."""
    prior: tuple[float, float] | None
    """Loss and exact match of the answer that ignores the prompt; None but of the base model."""
    seconds: float
    """CPU seconds of the run: steps, prefix and readings."""
    stopped: bool = False
    """Whether it was hopeless."""
    text: str | None = None
    """Hash of the tokens that `general` was read on; None before 2026-11-30, when they hung on the CPU threads."""

    @property
    def key(self) -> tuple[str, str, int, float | None]:
        """What is measured once."""
        return self.task, self.plan, self.seed, self.rate


@dataclass(frozen=True)
class Scored:
    """What criteria say on one task."""

    task: str
    """One of `SWEPT`."""
    reading: str
    """Of states."""
    placebo: bool
    """Whether the completions were shuffled among the training rows."""
    scores: dict[str, tuple[float, ...]]
    """Criterion -> score of each block."""
    seconds: float
    """CPU seconds of the analysis."""


def read_lines(path: Path, kind: Callable[..., Any]) -> list[Any]:
    """Return the records of a file of lines; none where there is no file."""
    return [kind(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def append(path: Path, record: Any) -> None:
    """Put one record behind the others."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record)) + "\n")


def blocks_of(plan: str) -> tuple[int, ...]:
    """Return the blocks that a plan's ranges name."""
    parts = (part.partition("-") for part in plan.split(","))
    return tuple(block for first, _, last in parts for block in range(int(first), int(last or first) + 1))


def size_of(plan: str) -> str:
    """Return which plans share a rate with this one: those of as many blocks, or itself."""
    return plan if plan in (WHOLE, LORA, BASE) else str(len(blocks_of(plan)))


def spread_out(n_blocks: int, budget: int) -> list[tuple[int, ...]]:
    """Return `JUDGES` runs of neighbours from the first to the last blocks."""
    starts = np.linspace(0, n_blocks - budget, JUDGES).round().astype(int).tolist()
    return [tuple(range(start, start + budget)) for start in dict.fromkeys(starts)]


def depth_plans(n_blocks: int, budget: int = BUDGET) -> dict[str, tuple[int, ...]]:
    """Return what is measured whatever criteria say, beside single blocks: name -> blocks."""
    draw = np.random.default_rng(22)
    named = {
        f"window {start}": tuple(range(start, start + budget)) for start in range(0, n_blocks - budget + 1, STRIDE)
    }
    for number in range(RANDOM_SETS):
        named[f"random {number}"] = tuple(sorted(draw.choice(n_blocks, budget, replace=False).tolist()))
    start = (n_blocks - budget) // 2
    named |= {
        "first": tuple(range(budget)),
        "middle": tuple(range(start, start + budget)),
        "last": tuple(range(n_blocks - budget, n_blocks)),
        "middle 20 to 80 %": tuple(range(round(0.2 * n_blocks), round(0.8 * n_blocks))),
    }
    return named


def rules(scored: Iterable[Scored], n_blocks: int, budget: int = BUDGET) -> dict[str, tuple[int, ...]]:
    """Return what every compared rule names on one task: its words -> blocks.

    At one block, and at `budget` blocks as a run of neighbours; the paper's rule in both our readings; and the upper
    half by gradient norm. A placebo's rules end in `(placebo)`.
    """
    named: dict[str, tuple[int, ...]] = {}
    for one in scored:
        end = f", {one.reading}" + (" (placebo)" if one.placebo else "")
        for name, scores in one.scores.items():
            if CRITERIA[name].needs == "nothing":
                continue
            named[f"1: {name}{end}"] = top_k(scores, 1)
            named[f"{budget}: {name}, neighbours{end}"] = window(scores, budget)
            if name == "ablation":
                least = [-score for score in scores]
                named[f"1: least ablation{end}"] = top_k(least, 1)
                named[f"{budget}: least ablation, neighbours{end}"] = window(least, budget)
        if "reduction" in one.scores:
            named[f"{budget}: SALF by reduction{end}"] = suffix(one.scores["reduction"], budget)
        if "law_headroom" in one.scores:
            start = max(top_k(one.scores["law_headroom"], 1)[0], n_blocks - budget)
            named[f"{budget}: SALF by law_headroom{end}"] = tuple(range(start, n_blocks))
        if "gradient_norm" in one.scores and one.reading == READINGS[0]:
            named[f"half: gradient_norm{end}"] = top_k(one.scores["gradient_norm"], n_blocks // 2)
    return named


def plans_of(scored: Sequence[Scored], n_blocks: int, budget: int = BUDGET) -> list[str]:
    """Return every plan of a task, in the order in which they are measured; those with a rule's blocks once.

    Sets follow each other by their first block: the states below one begin those below the next.
    """
    blocks = [(block,) for block in range(n_blocks)]
    sets = sorted([*depth_plans(n_blocks, budget).values(), *rules(scored, n_blocks, budget).values()])
    return [*dict.fromkeys([*map(format_blocks, blocks), WHOLE, LORA, *map(format_blocks, sets)])]


def seeds_of(plan: str, scored: Sequence[Scored], n_blocks: int, budget: int = BUDGET) -> tuple[int, ...]:
    """Return the seeds a plan is asked for under: a plan that only a placebo names has the first alone."""
    return SEEDS if plan in plans_of([one for one in scored if not one.placebo], n_blocks, budget) else SEEDS[:1]


def may_stop(plan: str, scored: Sequence[Scored], n_blocks: int, budget: int = BUDGET) -> bool:
    """Say whether a plan may be ended early: a window or a random set that no rule and no control names."""
    fixed = depth_plans(n_blocks, budget)
    free = {format_blocks(blocks) for name, blocks in fixed.items() if name.startswith(("window", "random"))}
    kept = [blocks for name, blocks in fixed.items() if not name.startswith(("window", "random"))]
    kept += [*spread_out(n_blocks, budget), *rules(scored, n_blocks, budget).values()]
    return plan in free - {format_blocks(blocks) for blocks in kept}


def hopeless(half_way: float, others: Sequence[float]) -> bool:
    """Say whether a run is to be ended half-way, by the validation losses of others of its size at that place."""
    if len(others) < LEAST_KNOWN:
        return False
    low, middle, high = np.percentile(others, [25, 50, 75])
    return half_way > middle + SPREADS * (high - low)


def shared_rate(cells: Iterable[Cell], task: str, plans: Sequence[str], rates: Sequence[float]) -> float | None:
    """Return the rate of the lowest mean validation loss over the judging plans; None where one is not measured.

    A rate at which a run diverged is out; where all did, the lowest one is taken.
    """
    known = {cell.key: cell.validation for cell in cells}
    found = {rate: [known.get((task, plan, 0, rate), math.nan) for plan in plans] for rate in rates}
    if any(loss is not None and math.isnan(loss) for losses in found.values() for loss in losses):
        return None
    means = {rate: np.mean([math.inf if loss is None else loss for loss in losses]) for rate, losses in found.items()}
    return min(rates, key=lambda rate: (means[rate], rate))


def widened(cells: Iterable[Cell], task: str, plan: str, rates: Sequence[float]) -> list[float]:
    """Return a control's rates, with half the least or twice the greatest while that one is the best of those tried.

    The best then lies between others, or at the end of `MOST_RATES`: whoever is compared with is not held back by
    where the search began.
    """
    found = {cell.rate: cell.validation for cell in cells if (cell.task, cell.plan, cell.seed) == (task, plan, 0)}
    tried = sorted(rates)
    while len(tried) < MOST_RATES and all(rate in found for rate in tried):
        losses = [math.inf if (loss := found[rate]) is None else loss for rate in tried]
        best = losses.index(min(losses))
        if best == 0:
            tried.insert(0, float(f"{tried[0] / 2:.3g}"))
        elif best == len(tried) - 1:
            tried.append(float(f"{tried[-1] * 2:.3g}"))
        else:
            break
    return tried


def near(cells: Mapping[tuple[str, int], float], plans: Sequence[str]) -> list[str]:
    """Return the plans of a budget whose mean is as near to the best's as seeds differ; they get a third seed.

    Args:
        cells: (plan, seed) -> score, of the first seeds.
        plans: of one budget.
    """
    scores = {plan: [cells[plan, seed] for seed in SEEDS] for plan in plans if all((plan, s) in cells for s in SEEDS)}
    if len(scores) < 2:
        return []
    spread = math.sqrt(np.mean([np.var(values, ddof=1) for values in scores.values()]))
    best = max(np.mean(values) for values in scores.values())
    found = [plan for plan, values in scores.items() if best - np.mean(values) <= spread]
    return found if len(found) > 1 else []


class Bench:
    """A loaded model and one task's rows, and what is measured on them."""

    def __init__(self, loaded: Any, task: Task, batch: int, budget: int = BUDGET) -> None:
        """Encode, as a run does."""
        from lsf.models.writing import GeneralText, sample_general_text  # noqa: PLC0415 torch, where there is work
        from lsf.training.splits import encode_splits  # noqa: PLC0415

        rows = task.train[: ALL_ROWS.get(task.name, TRAIN)]
        self.task = replace(task, train=rows, validation=task.validation[:VALIDATION])
        self.loaded, self.batch, self.budget = loaded, batch, budget
        self.steps = PASSES * len(self.task.train) // batch
        self.n_blocks: int = loaded.info.n_blocks
        self.splits = encode_splits(loaded, self.task, self.spec(WHOLE))
        whole = sample_general_text(loaded.model, loaded.tokenizer, loaded.context)
        self.text = GeneralText(whole.ids[:TEXTS], whole.lengths[:TEXTS])
        self.text_hash = hashlib.sha256(self.text.ids.numpy().tobytes()).hexdigest()[:12]

    def plan(self, plan: str) -> Plan:
        """Return where a plan tunes."""
        if plan == WHOLE:
            return full_plan(self.loaded.info.name, self.n_blocks)
        blocks = tuple(range(self.n_blocks)) if plan == LORA else blocks_of(plan)
        return Plan(self.loaded.info.name, self.n_blocks, blocks)

    def spec(self, plan: str) -> Any:
        """Return what is asked of a run of the product."""
        from lsf.runs.spec import RunSpec  # noqa: PLC0415

        return RunSpec(
            self.loaded.info.name, self.task.name, self.plan(plan), method=LORA if plan == LORA else WHOLE,
            steps=self.steps, batch_size=self.batch, max_length=LENGTH, eval_limit=TEST, device="cpu",
        )  # fmt: skip

    def rates(self, plan: str) -> list[float]:
        """Return the rates that are tried for a plan's size."""
        from lsf.training.short_runs import spec_rate  # noqa: PLC0415

        return [float(f"{factor * spec_rate(self.loaded, self.spec(plan)):.3g}") for factor in FACTORS]

    def judges(self, plan: str) -> list[str]:
        """Return the plans that find the rate of a plan's size."""
        if plan in (WHOLE, LORA):
            return [plan]
        size = len(blocks_of(plan))
        judged = size in (1, self.budget)
        return [format_blocks(blocks) for blocks in spread_out(self.n_blocks, size)] if judged else [plan]

    def base(self) -> Cell:
        """Measure the base model."""
        from lsf.data.report import completion_ids, prior_of  # noqa: PLC0415
        from lsf.training.evaluation import evaluate, general_loss  # noqa: PLC0415

        begun, model = time.process_time(), self.loaded.model
        ids = completion_ids(self.splits.train), completion_ids(self.splits.test)
        prior = prior_of(*ids, self.loaded.info.vocab_size)
        test = evaluate(model, self.splits.test, self.batch)
        held_out = evaluate(model, self.splits.validation, self.batch).loss
        general, told = general_loss(model, self.text), (prior.loss, prior.exact_match)
        seconds = time.process_time() - begun
        return Cell(
            self.task.name, BASE, 0, None, test.loss, test.exact_match, held_out, None, general, told, seconds,
            text=self.text_hash,
        )  # fmt: skip

    def tune(self, plan: str, rate: float, seed: int, others: Sequence[float] | None) -> Cell:
        """Tune a plan and measure it; with `others`, end it half-way where it is hopeless."""
        from lsf.methods.catalogue import options_of  # noqa: PLC0415
        from lsf.methods.context import MethodContext  # noqa: PLC0415
        from lsf.methods.registry import METHODS  # noqa: PLC0415
        from lsf.training.caching import open_caching, open_held_out  # noqa: PLC0415
        from lsf.training.evaluation import evaluate, general_loss  # noqa: PLC0415
        from lsf.training.fitting import short_run  # noqa: PLC0415
        from lsf.training.trainer import DivergedError, FitSettings, StepRow  # noqa: PLC0415

        begun, loaded, train, spec = time.process_time(), self.loaded, self.splits.train, self.spec(plan)
        context = MethodContext(options_of(spec.method, {}), train, seed, self.batch)
        model = METHODS[spec.method].prepare(loaded, spec.plan, context)
        settings = FitSettings(rate, self.steps, self.batch, self.steps // 10, 0.0, seed, "float32")

        def read(rows: Any, split: str) -> Any:
            prefix = None if plan in (WHOLE, LORA) else open_held_out(loaded, model, spec, rows, split, self.batch)
            return evaluate(model, rows, self.batch, prefix=prefix)

        half: list[float] = []

        def watch(row: StepRow) -> None:
            if row.step == self.steps // 2:
                half.append(read(self.splits.validation, "validation").loss)

        def stop() -> Any:
            return "discard" if half and others is not None and hopeless(half[0], others) else None

        cached = "off" if plan in (WHOLE, LORA) else "auto"
        caching = open_caching(loaded, model, spec.plan, train, cached, 2 * len(train))
        lost = Cell(self.task.name, plan, seed, rate, None, None, None, None, None, None, 0.0)
        try:
            done = short_run(model, train, settings, stop, watch, caching.prefix)
        except DivergedError:
            return replace(lost, half_way=finite(half[0] if half else None), seconds=time.process_time() - begun)
        finally:
            caching.close()
        lost = replace(lost, half_way=finite(half[0]))
        if done.stopped is not None:
            return replace(lost, stopped=True, seconds=time.process_time() - begun)
        test, held_out = read(self.splits.test, "test"), read(self.splits.validation, "validation").loss
        rows = self.text.rows
        prefix = None if plan in (WHOLE, LORA) else open_held_out(loaded, model, spec, rows, "text", self.batch)
        general = general_loss(model, self.text, prefix=prefix)
        return replace(
            lost, loss=finite(test.loss), exact_match=test.exact_match, validation=finite(held_out),
            general=finite(general), seconds=time.process_time() - begun, text=self.text_hash,
        )  # fmt: skip

    def score(self, reading: str, placebo: bool) -> Scored:
        """Return what criteria say on the training rows, or on the same rows with shuffled completions."""
        from lsf.criteria.result import AnalysisSettings  # noqa: PLC0415
        from lsf.lens.analyze import analyze  # noqa: PLC0415
        from lsf.progress import Silent  # noqa: PLC0415

        task = replace(self.task, train=shuffled(self.task.train)) if placebo else self.task
        again = reading != READINGS[0]  # only what is read of the states differs
        asked = [name for name, one in CRITERIA.items() if one.needs not in (*TOO_DEAR, "nothing", "weights")]
        asked = [name for name in asked if not again or CRITERIA[name].needs in ("forward", "vocabulary")]
        settings = AnalysisSettings(
            limit=len(task.train), split="train", reading=reading, criteria=tuple(asked), max_length=LENGTH,
            batch_size=self.batch,
        )  # fmt: skip
        begun = time.process_time()
        found = analyze(self.loaded, task, settings, Silent())
        known = {name: tuple(float(s) for s in found.scores(name) if s is not None) for name in found.criteria}
        return Scored(self.task.name, reading, placebo, known, time.process_time() - begun)


def next_run(
    bench: Bench, cells: Sequence[Cell], scored: Sequence[Scored], seed: int, alone: bool = False
) -> tuple[str, float] | None:
    """Return the plan and rate that are measured next under a seed; None where nothing is missing.

    With `alone`: of single blocks, the whole model and LoRA.
    """
    known, task = {cell.key for cell in cells}, bench.task.name
    plans = plans_of(scored, bench.n_blocks, bench.budget)
    for plan in plans[: bench.n_blocks + 2] if alone else plans:
        judges, rates = bench.judges(plan), bench.rates(plan)
        if plan in (WHOLE, LORA):
            rates = widened(cells, task, plan, rates)
        searched = [(judge, rate) for judge in judges for rate in rates]
        for judge, rate in searched if seed == 0 else ():
            if (task, judge, 0, rate) not in known:
                return judge, rate
        rate = shared_rate(cells, task, judges, rates)
        if (
            rate is not None
            and (task, plan, seed, rate) not in known
            and (
                seed in seeds_of(plan, scored, bench.n_blocks, bench.budget)
                or (seed not in SEEDS and _is_near(cells, plan, task, rate))
            )
        ):
            return plan, rate
    return None


def _is_near(cells: Sequence[Cell], plan: str, task: str, rate: float) -> bool:
    """Say whether a plan of a budget is among those too near to the best of it to be told apart by two seeds."""
    own = [cell for cell in cells if cell.task == task and cell.rate == rate and cell.loss is not None]
    plans = [*dict.fromkeys(cell.plan for cell in own if size_of(cell.plan) == size_of(plan))]
    return plan in near({(cell.plan, cell.seed): -(cell.loss or 0.0) for cell in own}, plans)


def measure(folder: str, tasks: Sequence[str], seconds: float, most: int | None = None) -> None:
    """Measure what is missing until the time is over.

    Single blocks first, on every task; seed 0 before 1, and the third of those that are near at last.
    """
    from lsf.models.loading import load_model  # noqa: PLC0415

    if "facts" in tasks and not KNOWN.exists():
        raise SystemExit(f"{KNOWN.name} is missing: `python benchmarks/evidence.py --real --facts` finds the facts.")
    end, done = time.monotonic() + seconds, 0
    loaded = load_model(folder, "float32", "cpu")
    for seed, alone in ((0, True), (0, False), (1, True), (1, False), (2, False)):
        for name in tasks:
            bench = Bench(loaded, real_task(name, loaded.tokenizer), BATCH)
            while time.monotonic() < end and (most is None or done < most):
                line = step(bench, seed, alone)
                if line is None:
                    break
                done += 1
                print(line, flush=True)


def step(bench: Bench, seed: int, alone: bool = False) -> str | None:
    """Measure one thing that is missing and write it down; None where nothing is."""
    name = bench.task.name
    cells: list[Cell] = read_lines(CELLS, Cell)
    own = [cell for cell in cells if cell.task == name]
    scored = [one for one in read_lines(SCORES, Scored) if one.task == name]
    if not any(cell.plan == BASE and cell.text == bench.text_hash for cell in own):
        append(CELLS, found := bench.base())
        return f"{name} base {found.loss:.3f} {found.seconds:.0f} s"
    for placebo in (False, True):
        for reading in READINGS:
            if not any((one.reading, one.placebo) == (reading, placebo) for one in scored):
                append(SCORES, read := bench.score(reading, placebo))
                return f"{name} scores {reading} placebo={placebo} {read.seconds:.0f} s"
    wanted = next_run(bench, own, scored, seed, alone)
    if wanted is None:
        return None
    plan, rate = wanted
    same = [cell for cell in own if size_of(cell.plan) == size_of(plan) and (cell.seed, cell.rate) == (seed, rate)]
    others = [cell.half_way for cell in same if cell.half_way is not None]
    free = may_stop(plan, scored, bench.n_blocks, bench.budget)
    append(CELLS, found := bench.tune(plan, rate, seed, others if free else None))
    return f"{name} {plan} rate {rate:g} seed {seed}: loss {found.loss} exact {found.exact_match} {found.seconds:.0f} s"


def again(folder: str, asked: str) -> None:
    """Measure committed runs from scratch, each at its rate, and print both.

    Args:
        folder: of the model.
        asked: TASK:PLAN:SEED, such as `sst2:14:0`.
    """
    from lsf.models.loading import load_model  # noqa: PLC0415

    name, plan, seed = asked.rsplit(":", 2)
    cells: list[Cell] = read_lines(CELLS, Cell)
    known = [one for one in cells if (one.task, one.plan, str(one.seed)) == (name, plan, seed) and one.rate is not None]
    if not known:
        raise SystemExit(f"There is no run {asked!r}; accepted is TASK:PLAN:SEED of one in {CELLS.name}.")
    loaded = load_model(folder, "float32", "cpu")
    bench = Bench(loaded, real_task(name, loaded.tokenizer), BATCH)
    for cell in known:
        fresh = bench.tune(plan, cell.rate or 0.0, cell.seed, None)
        print(f"rate {cell.rate:g}: committed {cell.loss}, {cell.exact_match}; again {fresh.loss}, {fresh.exact_match}")


TASKS = tuple(SWEPT)
"""In the order in which they are measured."""
