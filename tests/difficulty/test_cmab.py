import numpy as np
import pytest

from difftrain.difficulty import cmab
from difftrain.records import Stratum


def test_balance_is_geometric_over_layers_and_arithmetic_over_tokens() -> None:
    image = np.array([[9.0, 9.0], [1.0, 2.0], [4.0, 2.0], [9.0, 9.0]])
    text = np.ones((4, 2))
    assert cmab.balance(image, text, epsilon=1e-12) == pytest.approx((2.0 + 2.0) / 2)


def test_balance_ignores_the_first_and_last_layer() -> None:
    image, text = np.full((4, 3), 0.2), np.full((4, 3), 0.4)
    changed = image.copy()
    changed[[0, -1]] = 7.0
    assert cmab.balance(image, text) == cmab.balance(changed, text) == pytest.approx(0.5)


def test_an_image_without_attention_has_a_balance_of_epsilon() -> None:
    assert cmab.balance(np.zeros((3, 2)), np.ones((3, 2))) == pytest.approx(1e-8)


@pytest.mark.parametrize("shape", [(2, 3), (4, 0), (5,)])
def test_too_few_layers_or_tokens_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"layers|L x T"):
        cmab.balance(np.ones(shape), np.ones(shape))


def test_tables_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="both be L x T"):
        cmab.balance(np.ones((4, 3)), np.ones((4, 2)))


def test_a_token_without_attention_on_the_text_is_refused() -> None:
    with pytest.raises(ValueError, match="no ratio"):
        cmab.balance(np.ones((4, 1)), np.zeros((4, 1)))


def test_strata_have_the_papers_edges() -> None:
    rhos = (0.05, 0.1, 0.39, 0.4, 1.6, 1.61, 1.9, 1.91)
    strata = [cmab.stratum(rho, solved=True) for rho in rhos]
    assert strata == ["easy", "medium", "medium", "hard", "hard", "medium", "medium", "easy"]


def test_without_a_correct_response_a_sample_is_unsolved_whatever_its_balance() -> None:
    assert cmab.stratum(1.0, solved=False) is Stratum.unsolved
    assert cmab.stratum(None, solved=False) is Stratum.unsolved


def test_a_solved_sample_without_a_balance_is_refused() -> None:
    with pytest.raises(ValueError, match="finite balance"):
        cmab.stratum(None, solved=True)
