"""Blocks of both ends of a model: where lessons of the input and of the output side are learnt."""


def both_ends(n_blocks: int, budget: int) -> tuple[int, ...]:
    """Return so many blocks from both ends, the odd one from the deeper: 0 and L-1; 0, L-2 and L-1; and so on.

    Args:
        n_blocks: L of the model.
        budget: 1 .. L.
    """
    return tuple(range(budget // 2)) + tuple(range(n_blocks - (budget - budget // 2), n_blocks))
