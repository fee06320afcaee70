"""How tokens move up and down the lens from one state to the next."""

import pandas as pd

from lsf.analysis.result import ExamplePath
from lsf.figures.picture import visible

UP, DOWN, SAME, NEW = "▲", "▼", "=", "new"


def place_before(example: ExamplePath, state: int, token: str) -> int | None:
    """Return the place a token had one state before, 1 for the most likely.

    Only the best few tokens of each state are kept; of the target every rank is. None where the token was below them,
    and at state 0, before which there is none.
    """
    if state == 0:
        return None
    if token == example.target_token:
        return example.target_rank[state - 1]
    before = [name for name, _ in example.top_tokens[state - 1]]
    return before.index(token) + 1 if token in before else None


def change(example: ExamplePath, state: int, token: str, place: int) -> str:
    """Return a token's change of place since the state before: `▲ 2`, `▼ 1`, `=`, `new`; empty at state 0."""
    if state == 0:
        return ""
    before = place_before(example, state, token)
    if before is None:
        return NEW
    moved = before - place
    return SAME if moved == 0 else f"{UP if moved > 0 else DOWN} {abs(moved)}"


def ranks_table(example: ExamplePath, state: int) -> pd.DataFrame:
    """Return the best tokens of one state, where each was one state before, and the target where it is not among them.

    Args:
        example: a kept position.
        state: 0 .. L.

    Returns:
        One row per token, the best first; empty cells are unknown: a token marked `new` was below the kept ones.
    """
    kept = example.top_tokens[state]
    rows = [_row(example, state, token, place, mass) for place, (token, mass) in enumerate(kept, start=1)]
    if example.target_token not in [token for token, _ in kept]:
        rank, mass = example.target_rank[state], example.target_probability[state]
        rows.append(_row(example, state, example.target_token, rank, mass))
    table = pd.DataFrame(rows)
    return table.astype({"place before": "Int64"})


def _row(example: ExamplePath, state: int, token: str, place: int, mass: float) -> dict[str, object]:
    return {
        "place": place,
        "token": visible(token),
        "target": "target" if token == example.target_token else "",
        "probability": mass,
        "place before": place_before(example, state, token),
        "change": change(example, state, token, place),
    }


def ranks_words(example: ExamplePath, state: int) -> str:
    """Return what the table of one state shows, as one or two sentences."""
    target = visible(example.target_token)
    told = f"State {state}: the target {target} is at place {example.target_rank[state]:,}"
    if state == 0:
        return f"{told}; no state comes before."
    told += f", one state before at {example.target_rank[state - 1]:,}."
    best = example.top_tokens[state][0][0] if example.top_tokens[state] else ""
    before = place_before(example, state, best)
    if before == 1:
        return f"{told} {visible(best)} stays first."
    came = (
        f"from place {before:,}" if before is not None else f"from below the {len(example.top_tokens[state - 1])} kept"
    )
    return f"{told} {visible(best)} comes first {came}."
