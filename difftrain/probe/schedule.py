"""Which draw to ask next so that the label is the full grid's at the least cost. Pure.

Climb the ladder from ratio 0; at each rung draw until it certainly passes or certainly fails; stop
at the first rung that fails. Axes: R mask ratios, K draws; -1 = not drawn.
"""

import numpy as np

from difftrain.config.difficulty import PismConfig


def next_draws(
    correct_RK: np.ndarray, tau: float = 0.1, least: int | None = None
) -> list[tuple[int, int]]:
    """The (row, draw) to ask next, as a list of one; empty when the label is settled.

    `least` says in place of tau how many right answers pass a row (PismConfig.least); a row that
    can never pass, because least is above K, is not asked at all. One at a time, because a second
    draw asked at once may turn out not to be needed. The table is not changed. Raises ValueError
    for anything but an R x K table.
    """
    table_RK = np.asarray(correct_RK)
    if table_RK.ndim != 2 or table_RK.size == 0:
        raise ValueError(f"want a table of shape R x K, not {table_RK.shape}")
    if least is None:
        least = PismConfig(tau=tau).least(table_RK.shape[1])
    for row, correct_K in enumerate(table_RK):
        right = int((correct_K == 1).sum())
        undrawn = np.flatnonzero(correct_K == -1)
        if right >= least:
            continue
        if right + len(undrawn) < least:
            return []
        return [(row, int(undrawn[0]))]
    return []
