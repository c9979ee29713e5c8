"""ACE (of the paper RAP): the largest product of attention values down one column, as a logarithm.

The T x T table has the attention among the T tokens of a response. A column's product, whose values
are first multiplied by sigma, is psi in the paper.
"""

import itertools
import math

import numpy as np
import pytest

from difftrain.difficulty import ace
from difftrain.difficulty.ace import ColumnProducts


def causal_attention(num_tokens: int, seed: int = 0) -> np.ndarray:
    """Random attention among response tokens: a lower triangle whose rows sum to less than one.

    The rest of each row's softmax is the attention on the prompt.
    """
    table = np.tril(np.random.default_rng(seed).random((num_tokens, num_tokens)) + 0.01)
    return table / (table.sum(axis=1, keepdims=True) + 0.5)


def bias_by_hand(
    table: np.ndarray, sigma: float, min_rows: int, window: int | None
) -> float | None:
    """The same value as ace.bias, from products instead of sums of logarithms."""
    num_tokens, products = len(table), []
    for column in range(num_tokens):
        rows = range(column, num_tokens)
        if len(rows) >= min_rows:
            rows_in_window = list(rows)[:window]
            products.append(math.prod(sigma * table[row, column] for row in rows_in_window))
    return math.log(max(products)) if products else None


@pytest.mark.parametrize("sigma", [1.0, 2.0])
@pytest.mark.parametrize("min_rows", [1, 3])
@pytest.mark.parametrize("window", [None, 1, 2, 40])
def test_the_bias_is_the_papers_product(sigma: float, min_rows: int, window: int | None) -> None:
    for num_tokens in (2, 3, 9):
        table = causal_attention(num_tokens, seed=num_tokens)
        expected = bias_by_hand(table, sigma, min_rows, window)
        value = ace.bias(table, sigma, min_rows, window)
        assert value == (None if expected is None else pytest.approx(expected))


def test_the_last_column_is_a_product_of_one_factor() -> None:
    table = np.array([[0.1, 0.0], [0.1, 0.4]])
    sigma = 2.0  # the default factor of every attention value
    assert ace.bias(table) == pytest.approx(math.log(sigma * 0.4))
    first_column = (sigma * 0.1) * (sigma * 0.1)
    assert ace.bias(table, min_rows=2) == pytest.approx(math.log(first_column))


def test_values_above_the_diagonal_are_ignored() -> None:
    table = causal_attention(6)
    above_diagonal = np.triu(np.full((6, 6), 0.9), 1)
    assert ace.bias(table + above_diagonal) == ace.bias(table)


def test_a_product_too_small_for_a_float_is_computed_as_a_logarithm() -> None:
    num_tokens = 3000
    table = np.tril(np.full((num_tokens, num_tokens), 1e-3))
    factor = 2.0 * 1e-3  # sigma times the attention
    assert factor**num_tokens == 0.0
    value = ace.bias(table, min_rows=num_tokens)
    assert value == pytest.approx(num_tokens * math.log(factor))


@pytest.mark.parametrize("num_tokens", [0, 1])
def test_a_response_of_fewer_than_two_tokens_has_no_value(num_tokens: int) -> None:
    assert ace.bias(np.full((num_tokens, num_tokens), 0.4)) is None


def test_a_response_without_a_column_of_min_rows_has_no_value() -> None:
    assert ace.bias(causal_attention(4), min_rows=5) is None


def test_the_mean_logarithm_divides_by_the_number_of_factors() -> None:
    table = np.tril(np.full((5, 5), 0.2))
    assert ace.bias(table, normalize="mean_log") == pytest.approx(math.log(2.0 * 0.2))


def test_rows_can_be_added_in_chunks_of_any_size() -> None:
    table = causal_attention(12) + np.triu(np.ones((12, 12)), 1)  # ones, as log 0 is infinite
    bias_at_once = ace.bias(table, window=4)
    for cuts in itertools.combinations(range(1, 12), 2):
        columns = ColumnProducts(12, window=4)
        for start, end in itertools.pairwise((0, *cuts, 12)):
            columns.add(start, np.log(table[start:end]))
        assert columns.max_log_psi() == pytest.approx(bias_at_once)


def test_a_sample_is_biased_only_if_it_has_a_value_above_lambda_a() -> None:
    assert ace.is_biased(math.log(0.11))  # ACE's value is log psi
    assert not ace.is_biased(math.log(0.1))  # equal to the default lambda_a
    assert not ace.is_biased(None)


@pytest.mark.parametrize("table", [np.ones((2, 3)), np.ones(3), -np.ones((2, 2))])
def test_a_table_that_is_not_square_or_has_negative_values_is_refused(table: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"T x T|negative"):
        ace.bias(table)
