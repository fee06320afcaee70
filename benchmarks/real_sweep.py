"""The truth per block of a real model: every block alone, windows and sets of 8, on six tasks of SmolLM2-135M.

`python benchmarks/evidence.py --real --model FOLDER [--tasks sst2,...] [--seconds 600]` measures what is missing, one
line of real_sweep.jsonl per run and of real_scores.jsonl per analysis, and can be ended and started at any time;
`--facts` first finds the facts that the model knows; `--real --report` prints what the committed lines say. What is
measured and how it is judged was announced in docs/findings/2026-11-29-real-sweeps-announced.md.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.real import finite
from benchmarks.real_plans import (
    ALL_ROWS,
    BASE,
    BATCH,
    BUDGET,
    CELLS,
    FACTORS,
    LORA,
    PASSES,
    READINGS,
    SCORES,
    SEEDS,
    TEXTS,
    TOO_DEAR,
    TRAIN,
    VALIDATION,
    WHOLE,
    Cell,
    Scored,
    append,
    blocks_of,
    hopeless,
    may_stop,
    near,
    plans_of,
    read_lines,
    seeds_of,
    shared_rate,
    size_of,
    spread_out,
    widened,
)
from benchmarks.real_tasks import KNOWN, LENGTH, TEST, real_task, shuffled
from lsf.criteria.registry import CRITERIA
from lsf.data.task import Task
from lsf.plans.plan import Plan, format_blocks, full_plan


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
