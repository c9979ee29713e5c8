"""ACE: does the response hang on one of its own tokens? (T, ACE)

A is the last decoder layer's attention among the response's tokens; row i attends to columns
j <= i. psi_j is the product of sigma * A_ij down column j, and the sample is attention-biased if
the largest is above lambda_a. Products are sums of logarithms. The formula itself stands in
model/columns.py, because the probe feeds it row by row. Axes: T response tokens.
"""

import math

import numpy as np

from difftrain.config.difficulty import Normalize


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
    columns = ColumnProducts(len(table), sigma, window)
    with np.errstate(divide="ignore"):
        columns.add(0, np.log(np.tril(table)))
    return columns.largest(min_rows, Normalize(normalise))


class ColumnProducts:
    """log psi_j of each column j of a response's lower triangle, with psi_j = prod sigma * A_ij.

    `window` bounds each product to so many rows, the diagonal counted; None takes all.
    """

    def __init__(self, tokens: int, sigma: float = 2.0, window: int | None = None) -> None:
        self.tokens, self.log_sigma = tokens, math.log(sigma)
        self.window = tokens if window is None else window
        self.log_psi_T = np.zeros(tokens)
        self.factors_T = np.zeros(tokens, dtype=int)

    def add(self, first: int, log_rows_CT: np.ndarray) -> None:
        """Multiply rows first, first + 1, ... into their columns; above the diagonal is ignored."""
        row_C1 = first + np.arange(len(log_rows_CT))[:, None]
        below_CT = row_C1 - np.arange(self.tokens)[None]
        inside_CT = (below_CT >= 0) & (below_CT < self.window)
        self.log_psi_T += np.where(inside_CT, log_rows_CT + self.log_sigma, 0.0).sum(axis=0)
        self.factors_T += inside_CT.sum(axis=0)

    def largest(self, min_rows: int = 1, normalise: Normalize = Normalize.none) -> float | None:
        """The largest log psi_j over columns with min_rows rows or more, the diagonal counted.

        None where no column is left, and for a response of fewer than two tokens.
        """
        rows_T = self.tokens - np.arange(self.tokens)
        kept_T = rows_T >= min_rows
        if self.tokens < 2 or not kept_T.any():
            return None
        log_psi_T = self.log_psi_T
        if normalise is Normalize.mean_log:
            log_psi_T = log_psi_T / self.factors_T
        return float(log_psi_T[kept_T].max())
