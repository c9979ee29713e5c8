"""CMAB: the ratio of a response's attention on the image to that on the text, and its strata.

Tables have a row for each of L decoder layers and a column for each of T response tokens. `epsilon`
is added to every ratio, so that the logarithm of a ratio 0 is finite.
"""

import numpy as np
import pytest

from difftrain.difficulty import cmab
from difftrain.records import Stratum


def test_balance_is_geometric_over_layers_and_arithmetic_over_tokens() -> None:
    image = np.array([[9.0, 9.0], [1.0, 3.0], [4.0, 3.0], [9.0, 9.0]])
    text = np.ones((4, 2))
    token_means = (1.0 * 4.0) ** 0.5, (3.0 * 3.0) ** 0.5  # over the two inner layers
    assert cmab.balance(image, text, epsilon=1e-12) == pytest.approx(sum(token_means) / 2)


def test_balance_ignores_the_first_and_last_layer() -> None:
    image, text = np.full((4, 3), 0.2), np.full((4, 3), 0.4)
    changed = image.copy()
    changed[[0, -1]] = 7.0
    assert cmab.balance(image, text) == cmab.balance(changed, text) == pytest.approx(0.5)


def test_without_attention_on_the_image_the_balance_is_epsilon() -> None:
    assert cmab.balance(np.zeros((3, 2)), np.ones((3, 2))) == pytest.approx(1e-8)  # the default


@pytest.mark.parametrize("shape", [(2, 3), (4, 0), (5,)])
def test_tables_with_too_few_layers_tokens_or_dimensions_are_refused(
    shape: tuple[int, ...],
) -> None:
    with pytest.raises(ValueError, match=r"layers|L x T"):
        cmab.balance(np.ones(shape), np.ones(shape))


def test_tables_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="both be L x T"):
        cmab.balance(np.ones((4, 3)), np.ones((4, 2)))


def test_a_token_without_attention_on_the_text_is_refused() -> None:
    with pytest.raises(ValueError, match="no ratio"):
        cmab.balance(np.ones((4, 1)), np.zeros((4, 1)))


def test_strata_have_the_limits_of_the_paper() -> None:
    """Qi et al. 2026, section 3.2: hard from 0.4 to 1.6, else medium from 0.1 to 1.9, else easy."""
    balances = (0.05, 0.1, 0.39, 0.4, 1.6, 1.61, 1.9, 1.91)
    strata = [cmab.stratum(balance, solved=True) for balance in balances]
    assert strata == ["easy", "medium", "medium", "hard", "hard", "medium", "medium", "easy"]


def test_without_a_correct_response_a_sample_is_unsolved_whatever_its_balance() -> None:
    assert cmab.stratum(1.0, solved=False) is Stratum.unsolved
    assert cmab.stratum(None, solved=False) is Stratum.unsolved


def test_a_solved_sample_without_a_balance_is_refused() -> None:
    with pytest.raises(ValueError, match="finite balance"):
        cmab.stratum(None, solved=True)
