"""ACE (attention confidence; the paper RAP): does a response depend on one of its own tokens?

A is the last decoder layer's attention among the response's tokens; token i attends to tokens
j <= i. psi_j is the product of sigma * A_ij down column j, where sigma is a fixed factor. A sample
is attention-biased if its largest psi_j is above the threshold lambda_a. Axes: C rows added in one
call, T response tokens.
"""

import math

import numpy as np

from difftrain.config.difficulty import DifficultyConfig, Normalize, ProbeConfig
from difftrain.difficulty.definition import Definition, ProbeDraws
from difftrain.difficulty.evidence import Evidence


class ColumnProducts:
    """log psi_j of each column j, as a sum of logarithms: the product can be too small for a float.

    Rows of A can be added a few at a time, so no T x T array is needed. `window` limits each
    product to that many rows, starting at the diagonal; None means all rows.
    """

    def __init__(self, num_tokens: int, sigma: float = 2.0, window: int | None = None) -> None:
        self.num_tokens, self.log_sigma = num_tokens, math.log(sigma)
        self.window = num_tokens if window is None else window
        self.log_psi_T = np.zeros(num_tokens)
        self.num_factors_T = np.zeros(num_tokens, dtype=int)

    def add(self, first_row: int, log_rows_CT: np.ndarray) -> None:
        """Multiply rows first_row, first_row + 1, ... into the products; omit values of j > i."""
        row_C1 = first_row + np.arange(len(log_rows_CT))[:, None]
        row_minus_column_CT = row_C1 - np.arange(self.num_tokens)[None]
        inside_CT = (row_minus_column_CT >= 0) & (row_minus_column_CT < self.window)
        self.log_psi_T += np.where(inside_CT, log_rows_CT + self.log_sigma, 0.0).sum(axis=0)
        self.num_factors_T += inside_CT.sum(axis=0)

    def max_log_psi(self, min_rows: int = 1, normalize: Normalize = Normalize.none) -> float | None:
        """The largest log psi_j over the columns with at least min_rows rows, diagonal included.

        None if no column has min_rows rows, or if the response has fewer than two tokens.
        """
        has_min_rows_T = self.num_tokens - np.arange(self.num_tokens) >= min_rows
        if self.num_tokens < 2 or not has_min_rows_T.any():
            return None
        divisor_T = self.num_factors_T if normalize is Normalize.mean_log else 1
        return float((self.log_psi_T / divisor_T)[has_min_rows_T].max())


def bias(
    attention_TT: np.ndarray,
    sigma: float = 2.0,
    min_rows: int = 1,
    window: int | None = None,
    normalize: str = "none",
) -> float | None:
    """The largest log psi_j over the columns, psi_j = prod of sigma * A_ij over i = j .. T-1.

    normalize=mean_log divides each log psi_j by its number of factors; `window` and `min_rows` are
    as in ColumnProducts. Raises ValueError if the array is not square or has a negative value.
    """
    attention = np.asarray(attention_TT, dtype=float)
    if attention.ndim != 2 or attention.shape[0] != attention.shape[1]:
        raise ValueError(f"attention must be T x T, not {attention.shape}")
    if not (np.tril(attention) >= 0).all():
        raise ValueError("attention must not be negative")
    columns = ColumnProducts(len(attention), sigma, window)
    with np.errstate(divide="ignore"):  # log 0 is -inf
        columns.add(0, np.log(np.tril(attention)))
    return columns.max_log_psi(min_rows, Normalize(normalize))


def is_biased(log_psi: float | None, lambda_a: float = 0.1) -> bool:
    """Whether the largest log psi is above log lambda_a; False if it is None."""
    return log_psi is not None and log_psi > math.log(lambda_a)


def score(
    evidence: Evidence, _config: DifficultyConfig, _probe: ProbeConfig
) -> tuple[float | None, None]:
    """The largest log psi of the first response, as the attention pass computed it.

    Raises ValueError if the response has tokens, but no attention row.
    """
    if row := evidence.attention.get(0):  # of draw 0, the first response
        return row.max_log_psi, None
    if evidence.first_num_tokens != 0:
        raise ValueError("the attention of the first response was not measured")
    return None, None


MEASURE = Definition(
    meaning="how much the model's attention concentrates on single tokens of its own response",
    score=score,
    draws=lambda _config, _probe: ProbeDraws(full_image=1),
    keeps=lambda value, config: not is_biased(value, config.ace.lambda_a),
)
