"""Files to take away: JSON, and tables for other programs."""

import json
from typing import Any

import pandas as pd

from lsf.analysis.result import Analysis
from lsf.files import finite


def as_json(value: Any) -> str:
    """Return plain JSON text; unknown is null."""
    return json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def table_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV; unknown is an empty cell."""
    return table.to_csv(index=False)


def table_json(table: pd.DataFrame) -> str:
    """Return a table as a JSON list of rows; unknown is null."""
    return as_json(json.loads(str(table.to_json(orient="records", double_precision=15))))


def states_csv(analysis: Analysis) -> str:
    """Return one row per state, and beside it the scores of the block that ends in it."""
    rows: list[dict[str, Any]] = []
    for row in analysis.states:
        plain: dict[str, Any] = {name: value for name, value in vars(row).items() if name != "top_tokens"}
        plain["top_token"] = row.top_tokens[0][0] if row.top_tokens else None
        if row.state:
            block = analysis.blocks[row.state - 1]
            plain |= {"block": block.block, **{f"score_{name}": score for name, score in block.scores.items()}}
        rows.append(plain)
    return pd.DataFrame(rows).to_csv(index=False)
