"""ACE: does the response hang on one of its own tokens? (T, ACE)

A is the last decoder layer's attention among the response's tokens; row i attends to columns
j <= i. psi_j is the product of sigma * A_ij down column j, and the sample is attention-biased if
the largest is above lambda_a. Products are sums of logarithms. The formula itself stands in
model/columns.py, because the probe feeds it row by row. Axes: T response tokens.
"""

import numpy as np

from difftrain.config.difficulty import Normalize
from difftrain.model.columns import Columns


def bias(
    attention_TT: np.ndarray,
    sigma: float = 2.0,
    min_rows: int = 1,
    window: int | None = None,
    normalise: str = "none",
) -> float | None:
    """The largest log psi_j over the columns, psi_j = prod of sigma * A_ij over i = j .. T-1.

    `min_rows` leaves out columns with fewer rows, `window` bounds each product to so many rows,
    the diagonal counted in both; normalise=mean_log divides by the number of factors. None where
    no column is left, and for a response of fewer than two tokens. Raises ValueError for anything
    but a square table of values from 0 up.
    """
    table = np.asarray(attention_TT, dtype=float)
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(f"attention must be T x T, not {table.shape}")
    if not (np.tril(table) >= 0).all():
        raise ValueError("attention must not be negative")
    columns = Columns(len(table), sigma, window)
    with np.errstate(divide="ignore"):
        columns.add(0, np.log(np.tril(table)))
    return columns.largest(min_rows, Normalize(normalise))
