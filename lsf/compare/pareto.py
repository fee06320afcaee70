"""Which runs no other run beats in both quality and cost."""

from collections.abc import Sequence

from lsf.compare.table import Row


def non_dominated(quality: Sequence[float | None], cost: Sequence[float | None]) -> tuple[bool, ...]:
    """Mark the points that no other point dominates.

    A point is dominated where another is at least as good and at least as cheap, and better or cheaper. Equal points do
    not dominate each other. An unknown value takes a point out.

    Args:
        quality: higher is better.
        cost: lower is better, as long as `quality`.

    Returns:
        One truth value per point.
    """
    points = list(zip(quality, cost, strict=True))
    known = [(q, c) for q, c in points if q is not None and c is not None]

    def stands(one: tuple[float | None, float | None]) -> bool:
        q, c = one
        if q is None or c is None:
            return False
        return not any(q2 >= q and c2 <= c and (q2, c2) != (q, c) for q2, c2 in known)

    return tuple(stands(point) for point in points)


def pareto(rows: Sequence[Row], quality: str = "exact_match_after", cost: str = "tuning_seconds") -> tuple[str, ...]:
    """Return the ids of the runs that are not dominated.

    Args:
        rows: of a comparison.
        quality: column, higher is better; a column of losses (`loss_...`, `forgetting`) is turned round.
        cost: column, lower is better: `seconds`, `peak_memory_bytes`, `trainable_params`.
    """
    lower_is_better = quality.startswith(("loss_", "perplexity_", "general_loss_", "forgetting"))
    values = [getattr(row, quality) for row in rows]
    turned = [None if value is None else -value if lower_is_better else value for value in values]
    marks = non_dominated(turned, [getattr(row, cost) for row in rows])
    return tuple(row.run for row, stands in zip(rows, marks, strict=True) if stands)
