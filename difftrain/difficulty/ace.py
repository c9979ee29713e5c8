"""ACE: does the response depend on one of its own tokens? (RAP, ACE)

A is the last decoder layer's attention among the response's tokens; row i attends to columns
j <= i. psi_j is the product of sigma * A_ij down column j, as a sum of logarithms, and the sample
is attention-biased if the largest is above lambda_a. Axes: C rows that come together, T response
tokens.
"""

import math

import numpy as np

from difftrain.config.difficulty import Normalize


class ColumnProducts:
    """log psi_j of each column j of a response's lower triangle, with psi_j = prod sigma * A_ij.

    Rows may come a few at a time, so that no T x T table needs to be kept. `window` limits each
    product to so many rows, the diagonal counted; None takes all.
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

    def max_log_psi(self, min_rows: int = 1, normalize: Normalize = Normalize.none) -> float | None:
        """The largest log psi_j over columns with min_rows rows or more, the diagonal counted.

        None where no column is left, and for a response of fewer than two tokens.
        """
        kept_T = self.tokens - np.arange(self.tokens) >= min_rows
        if self.tokens < 2 or not kept_T.any():
            return None
        factors_T = self.factors_T if normalize is Normalize.mean_log else 1
        return float((self.log_psi_T / factors_T)[kept_T].max())


def bias(
    attention_TT: np.ndarray,
    sigma: float = 2.0,
    min_rows: int = 1,
    window: int | None = None,
    normalize: str = "none",
) -> float | None:
    """The largest log psi_j over the columns, psi_j = prod of sigma * A_ij over i = j .. T-1.

    normalize=mean_log divides by the number of factors; the rest is as in ColumnProducts. Raises
    ValueError for anything but a square table without negative values.
    """
    attention = np.asarray(attention_TT, dtype=float)
    if attention.ndim != 2 or attention.shape[0] != attention.shape[1]:
        raise ValueError(f"attention must be T x T, not {attention.shape}")
    if not (np.tril(attention) >= 0).all():
        raise ValueError("attention must not be negative")
    columns = ColumnProducts(len(attention), sigma, window)
    with np.errstate(divide="ignore"):
        columns.add(0, np.log(np.tril(attention)))
    return columns.max_log_psi(min_rows, Normalize(normalize))


def is_biased(log_psi: float | None, lambda_a: float = 0.1) -> bool:
    """Whether the largest log psi is above log lambda_a; False where there is none."""
    return log_psi is not None and log_psi > math.log(lambda_a)
