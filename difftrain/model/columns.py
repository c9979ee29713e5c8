"""Products down the columns of a response's attention, as sums of logarithms (T, ACE).

Rows may come a few at a time, so that no T x T table needs to be held. numpy only.
Axes: C rows that come together, T response tokens.
"""

import math

import numpy as np

from difftrain.config.difficulty import Normalize


class Columns:
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
