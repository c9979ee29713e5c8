"""Results that nothing decided, and the reason where a benchmark has no score for it. Pure."""

from collections.abc import Mapping, Sequence

from difftrain.records import ItemResult, ItemStatus

ALWAYS_JUDGED = "MMVet"
"""The benchmark that has no rules of its own."""


def count_undecided(results: Sequence[ItemResult]) -> int:
    """Results that no rule or reply decided; they count 0, or as their drawn option does."""
    return sum(
        result.status is ItemStatus.scored and result.graded_by is None for result in results
    )


def count_skipped(results: Sequence[ItemResult]) -> int:
    """Items that could not be sent to the model; they have no score."""
    return sum(result.status is ItemStatus.skipped for result in results)


def count_no_response(results: Sequence[ItemResult]) -> int:
    """Items for which the engine gave no response; they have no score."""
    return sum(result.status is ItemStatus.failed and result.response is None for result in results)


def nothing_decided(results: Sequence[ItemResult]) -> bool:
    """Whether no result comes from a rule or a judge, so that a mean would be made of failures."""
    return all(result.score is None or result.graded_by is None for result in results)


def no_score_reason(benchmark: str, results: Sequence[ItemResult]) -> str | None:
    """Why a benchmark with these results has no score; None if it has one."""
    if not results or not nothing_decided(results):
        return None
    without = sum(result.score is None for result in results)
    if without:
        rest = ", and nothing decided the others" if without < len(results) else ""
        return f"{without} of {len(results)} items got no score{rest}"
    if benchmark.removeprefix("shapes/") == ALWAYS_JUDGED:
        return f"{ALWAYS_JUDGED} needs a judge: none was asked, or none of its replies was a score"
    return f"neither a rule nor a judge decided any of the {len(results)} items"


def no_mean_reason(results_by_benchmark: Mapping[str, Sequence[ItemResult]]) -> str | None:
    """Why there is no mean over these benchmarks; None if there is one."""
    without = [
        name
        for name, results in results_by_benchmark.items()
        if results and nothing_decided(results)
    ]
    if not without:
        return None
    return (
        f"no mean over {len(results_by_benchmark)}, without a score of {', '.join(sorted(without))}"
    )
