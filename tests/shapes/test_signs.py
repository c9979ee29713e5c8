"""Signs: distinct symbols with distinct names, and questions whose answers are true."""

from itertools import combinations
from random import Random

import numpy as np
import pytest

from difftrain.shapes import signs
from difftrain.shapes.signs import DOT, KNOWN, NUM_SIGNS


def test_bitmaps_differ_and_no_name_is_used_twice() -> None:
    every = signs.signs()
    assert len(every) == len({sign.name for sign in every}) == NUM_SIGNS
    bitmaps = ["".join(sign.bits) for sign in every]
    for a, b in combinations(bitmaps, 2):
        assert sum(x != y for x, y in zip(a, b, strict=True)) >= signs.MIN_DISTANCE


def test_the_wrong_names_of_disputed_signs_are_the_true_names_of_other_disputed_signs() -> None:
    """So no name is wrong in itself, and each sign is to be learned for itself."""
    disputed = signs.signs()[KNOWN : KNOWN + signs.DISPUTED]
    assert {sign.alias for sign in disputed} == {sign.name for sign in disputed}
    assert all(sign.alias != sign.name for sign in disputed)


def test_true_shares_fall_from_known_to_disputed_signs_and_end_there() -> None:
    shares = [sign.true_share for sign in signs.signs()]
    assert shares[:KNOWN] == [1.0] * KNOWN
    assert shares[KNOWN] == signs.TRUE_SHARES[0]
    assert shares[KNOWN + signs.DISPUTED - 1] == pytest.approx(signs.TRUE_SHARES[1])
    assert shares[KNOWN + signs.DISPUTED :] == [None] * (NUM_SIGNS - KNOWN - signs.DISPUTED)


def test_the_image_shows_the_bitmap_of_the_named_sign() -> None:
    for seed in range(20):
        drawn = signs.sign(Random(seed), gen_difficulty=0.5)
        (rank,) = drawn.signs
        ink = np.asarray(drawn.image).min(axis=2) < 255
        rows, columns = np.nonzero(ink)
        box = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        dots = box[DOT // 2 :: DOT, DOT // 2 :: DOT]
        bitmap = np.array([[bit == "1" for bit in row] for row in signs.signs()[rank].bits])
        rows, columns = np.nonzero(bitmap)
        bitmap = bitmap[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (dots == bitmap).all()
        assert drawn.answer == signs.signs()[rank].name


def test_every_number_has_two_digits_so_a_code_can_be_read_in_one_way() -> None:
    for sign in signs.signs():
        assert 10 <= signs.number(sign.name) <= 99
    code = signs.code(Random(1), gen_difficulty=0.5)
    first, second = (signs.number(signs.signs()[rank].name) for rank in code.signs)
    assert code.answer == f"{first}{second}"


def test_a_known_sign_stands_beside_the_one_of_the_given_difficulty() -> None:
    for seed in range(20):
        ranks = signs.both(Random(seed), gen_difficulty=0.9).signs
        assert sorted(rank < KNOWN for rank in ranks) == [False, True]
        assert int(0.9 * NUM_SIGNS) in ranks


def test_the_options_hold_the_true_and_the_wrong_name() -> None:
    for seed in range(20):
        drawn = signs.pick(Random(seed), gen_difficulty=0.5)
        sign = signs.signs()[drawn.signs[0]]
        assert {sign.name, sign.alias} <= set(drawn.options)
        assert len(set(drawn.options)) == 4
        assert drawn.options["ABCD".index(drawn.answer)] == sign.name


def test_another_name_leads_to_another_answer() -> None:
    sign = signs.signs()[KNOWN]
    assert signs.conclude("sign", [sign.alias], (), signs.CALLED) == (sign.alias, sign.alias)
    _, code = signs.conclude("code", [sign.alias, sign.name], (), signs.CODE)
    assert code == f"{signs.number(sign.alias)}{signs.number(sign.name)}"
