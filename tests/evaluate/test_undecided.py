"""Where nothing was decided there is no score, and words say why."""

from collections.abc import Sequence

import pytest

from difftrain.evaluate.summary import summarize, summarize_mean
from difftrain.evaluate.unscored import count_undecided, no_score_reason
from difftrain.evaluate.write_results import breakdown
from difftrain.records import GradedBy, ItemResult, ItemStatus


def marks(
    scores: Sequence[float | None], path: GradedBy | None = None, benchmark: str = "MMStar"
) -> list[ItemResult]:
    return [
        ItemResult(
            benchmark=benchmark,
            item_id=f"s/0/{place}/0",
            response="",
            extracted=None,
            score=score,
            graded_by=path,
            status=ItemStatus.failed if score is None else ItemStatus.scored,
            category="s",
        )
        for place, score in enumerate(scores)
    ]


UNDECIDED = marks([0.0, 0.0])
DEAD = marks([None, None])
DECIDED = marks([1.0, 0.0], GradedBy.rule)


@pytest.mark.parametrize("name", ["MMStar", "shapes/MMVet", "HallusionBench"])
@pytest.mark.parametrize("none", [UNDECIDED, DEAD, [*UNDECIDED, *DEAD]], ids=["0", "None", "both"])
def test_a_score_made_of_failures_alone_is_none_with_words(
    name: str, none: list[ItemResult]
) -> None:
    found = summarize(name, none)
    assert (found.score, found.low, found.high, found.n) == (None, None, None, 0)
    assert found.failed == len(none)
    assert found.reason
    assert found.reason == no_score_reason(name, none)


def test_the_words_say_what_is_missing() -> None:
    assert summarize("shapes/MMVet", UNDECIDED).reason == (
        "MMVet needs a judge: none was asked, or none of its replies was a score"
    )
    assert summarize("MMStar", DEAD).reason == "2 of 2 items got no score"
    assert "nothing decided the others" in str(summarize("MMStar", [*UNDECIDED, *DEAD]).reason)


def test_one_decided_item_makes_a_score_and_the_others_are_counted() -> None:
    found = summarize("MMStar", [*DECIDED[:1], *UNDECIDED, *DEAD])
    assert found.score == pytest.approx(1 / 3)
    assert (found.n, found.failed, found.undecided, found.reason) == (3, 4, 2, None)
    assert count_undecided([*DECIDED, *UNDECIDED, *DEAD]) == 2


def test_there_is_no_mean_over_benchmarks_of_which_one_has_no_score() -> None:
    found = summarize_mean({"MMStar": DECIDED, "MMVet": UNDECIDED})
    assert found.score is None
    assert found.reason == "no mean over 2, without a score of MMVet"
    assert (found.failed, found.undecided) == (2, 2)


def test_where_nothing_was_decided_no_table_prints_zeros() -> None:
    assert breakdown("MMVet", marks([0.0, 0.0], benchmark="MMVet")) == {}
    decided = marks([1.0, 0.0], GradedBy.judge, "MMVet")
    assert breakdown("MMVet", decided)["capabilities"]["Overall"]["score"] == 0.5
