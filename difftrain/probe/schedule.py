"""Which draw to ask next so that the label is the full grid's at the least cost. Pure.

Climb the ladder from ratio 0; at each rung draw until it certainly passes or certainly fails; stop
at the first rung that fails. Axes: R mask ratios, K draws; -1 = not drawn.
"""

import numpy as np


def next_draws(correct_RK: np.ndarray, tau: float = 0.1) -> list[tuple[int, int]]:
    """The (row, draw) to ask next, as a list of one; empty when the label is settled.

    One at a time, because a second draw asked at once may turn out not to be needed. The table
    is not changed. Raises ValueError for anything but an R x K table.
    """
    table_RK = np.asarray(correct_RK)
    if table_RK.ndim != 2 or table_RK.size == 0:
        raise ValueError(f"want a table of shape R x K, not {table_RK.shape}")
    draws = table_RK.shape[1]
    least = int(np.ceil(draws * tau - 1e-9))
    for row, correct_K in enumerate(table_RK):
        right = int((correct_K == 1).sum())
        undrawn = np.flatnonzero(correct_K == -1)
        if right >= least:
            continue
        if right + len(undrawn) < least:
            return []
        return [(row, int(undrawn[0]))]
    return []
