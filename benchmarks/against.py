"""Bars over the peers: the same lens deviations on batches of equal length, and whole analyses of real data."""

import statistics
import sys
from pathlib import Path

from benchmarks.bars import Bar
from benchmarks.models import BATCH, REAL, SHAPES, model_folder, real_rows, text_model_folder, word_rows
from benchmarks.racing import megabytes, ours, paired_ratio, peer, round_seconds, rows_file, run_race
from benchmarks.turns import Contestant
from lsf.data.encode import context_length
from lsf.models.loading import load_model

AGREEMENT = 1e-4
"""Greatest difference of a deviation from ours; beyond it no time counts."""
HOOKED = ("TransformerLens", "nnsight")
HEADED = ("tuned-lens", "output_hidden_states")
SPARING = (("TransformerLens", True), ("nnsight", True), ("output_hidden_states", True), ("plain hook", False))
"""Uses that leave out what a reader of the documentation would do; shown, no bar."""


class DisagreementError(RuntimeError):
    """A peer's deviations are not ours."""


def difference(mine: Contestant, other: Contestant) -> float:
    """Return the greatest difference of deviations and target deviations."""
    return max(
        abs(a - b)
        for key in ("deviation", "target_deviation")
        for a, b in zip(mine.result[key], other.result[key], strict=True)
    )


def check_agreement(mine: Contestant, other: Contestant) -> float:
    """Return the greatest difference of deviations and target deviations.

    Raises:
        DisagreementError: it exceeds `AGREEMENT`.
    """
    apart = difference(mine, other)
    if not apart <= AGREEMENT:
        raise DisagreementError(f"{other.name} finds deviations that differ from ours by {apart:.2g}.")
    return apart


def peer_bars(name: str, n: int) -> list[Bar]:
    """Measure every peer against our deviations on n examples of equal length.

    Args:
        name: of a model in `SHAPES`.
        n: examples.
    """
    rows, model, batches = rows_file(f"{name}-peers", word_rows(name, n)), model_folder(name), n // BATCH
    runs = run_race(
        [
            ours("bare", model, rows),
            ours("deviation", model, rows),
            *(peer(one, model, rows) for one in HOOKED + HEADED),
            *(peer(one, model, rows, sparing=sparing) for one, sparing in SPARING),
        ]
    )
    mine, bare = runs["ours deviation"], runs.pop("ours bare")
    others = {key: run for key, run in runs.items() if run is not mine}
    apart = max(check_agreement(mine, other) for other in others.values())
    times = {key: paired_ratio(run, mine, batches) for key, run in others.items()}
    own = paired_ratio(mine, bare, batches)
    label = f"ours, lens deviations, {SHAPES[name].label}"
    hooked, headed = (min(group, key=times.__getitem__) for group in (HOOKED, HEADED))
    least = min(HOOKED + HEADED, key=lambda key: others[key].result["peak"])
    return [
        Bar(f"{hooked} (best hook peer) / {label}: time", times[hooked], 1.15, True, _bare(times, own, HOOKED)),
        Bar(
            f"{headed} (best with the head at every state) / {label}: time",
            times[headed],
            3,
            True,
            _bare(times, own, HEADED),
        ),
        Bar(
            f"ours / {least} (least of these peers), {SHAPES[name].label}: peak memory, weights included",
            mine.result["peak"] / others[least].result["peak"],
            1.0,
            note=", ".join(f"{key} {megabytes(run.result['peak'])}" for key, run in runs.items()),
        ),
        *(
            Bar(f"{key} / {label}: time", times[key], note=f"{times[key] * own:.2f}x the bare pass")
            for key in times
            if key not in HOOKED + HEADED
        ),
        Bar(
            f"all peers, {SHAPES[name].label}: greatest difference of a deviation from ours", apart, AGREEMENT, unit=""
        ),
    ]


def _bare(times: dict[str, float], own: float, names: tuple[str, ...]) -> str:
    parts = [f"{name} {times[name] * own:.2f}x the bare pass" for name in names]
    return ", ".join([*parts, f"ours {own:.2f}x"])


def real_bars(model_name: str, data: str, n: int, rounds: int, peers: tuple[str, ...] = HOOKED + HEADED) -> list[Bar]:
    """Measure whole analyses of real data against the peers in their usual padded batches, in the file's order.

    Args:
        model_name: `stories260K` or a key of `SHAPES`.
        data: a key of `REAL`.
        n: examples.
        rounds: passes of each; the median counts.
        peers: who is measured.
    """
    model = text_model_folder(model_name)
    rows = rows_file(f"{model_name}-{data}", fitting(model, real_rows(data, None), n))
    runs = run_race([ours("deviation", model, rows, rounds), *(peer(one, model, rows, rounds) for one in peers)])
    mine = runs.pop("ours deviation")
    apart = {key: difference(mine, other) for key, other in runs.items()}
    wrong = [
        f"{key} left out: its deviations differ by {found:.2g}" for key, found in apart.items() if found > AGREEMENT
    ]
    runs = {key: run for key, run in runs.items() if apart[key] <= AGREEMENT}
    if not runs:
        raise DisagreementError(f"No peer finds our deviations: {'; '.join(wrong)}.")
    own = round_seconds(mine, rounds)
    times = {
        key: statistics.median(a / b for a, b in zip(round_seconds(run, rounds), own, strict=True))
        for key, run in runs.items()
    }
    best = min(times, key=times.__getitem__)
    label = f"{model_name}, {data}"
    waste = mine.result["waste"]
    return [
        Bar(f"tokens computed that are padding or behind the last position, {label}", 100 * waste, 5, unit=" %"),
        Bar(
            f"{best} (best peer) / ours, whole analysis, {label}: time",
            times[best],
            1.5,
            at_least=True,
            note=f"{n} examples, ours {statistics.median(own):.2f} s; "
            + ", ".join([*(f"{key} {ratio:.2f}x" for key, ratio in times.items()), *wrong]),
        ),
    ]


def fitting(model: Path, rows: list[tuple[str, str]], n: int) -> list[tuple[str, str]]:
    """Return the first n rows that fit the model's context whole: what is longer we cut as we do, and peers do not."""
    loaded = load_model(str(model), "float32", "cpu")
    limit = context_length(loaded.context, None)
    found = []
    for row in rows:
        if len(found) < n and len(loaded.tokenizer(row[0] + row[1])["input_ids"]) <= limit:
            found.append(row)
    return found


def all_real_bars(quick: bool) -> list[Bar]:
    """Measure both models on both data sets.

    On GPT-2's shape without the peers that apply its head of 50,257 words at every state: on SST-2 they took 138 and
    140 s where the hooked ones took 25 and 26 s (2026-11-21), and only the best peer counts.
    """
    if not text_data_is_here():
        print("the real models and texts are not beside this checkout: the part `real` is left out", file=sys.stderr)
        return []
    bars = []
    for data in REAL:
        bars += real_bars("stories260K", data, 256 if quick else 1024, 3)
        bars += real_bars("gpt2", data, 48 if quick else 128, 1, HOOKED)
    return bars


def text_data_is_here() -> bool:
    """Say whether the shared folder of real models and texts is beside the checkout."""
    return (model_folder("stories260K") / "config.json").exists()
