"""What a reader must know before believing the headline: seeds, sizes, judges, contamination."""

from typing import Any

from difftrain.config.train import DROP_REASONS, Dropped

MAX_NAMED_HITS = 5
"""Contaminated samples that are named in a sentence; report.json has all."""


def caveats(report: dict[str, Any]) -> list[str]:
    """All caveats of a run, one sentence or two each."""
    sentences = [
        f"One training run with one seed ({report['seed']}): the intervals cover the variance of "
        "benchmark items, not that of training runs."
    ]
    if any(name.startswith("shapes/") for name in report["base"]):
        sentences.append(
            "Benchmarks under shapes/ are miniatures of the embedded world in the official item "
            "formats. Their scores are not scores of the official benchmarks."
        )
    if unequal := unequal_control(report):
        sentences.append(unequal)
    sentences += dropped_samples(report)
    sentences += evaluation_caveats(report)
    return sentences + contamination_caveats(report)


def unequal_control(report: dict[str, Any]) -> str | None:
    """A warning if the control was not trained on as many samples for as many steps."""
    trained = report["trained"]
    if "control" not in trained:
        return None
    differences = [
        f"{name}: {trained['tuned'][name]:,} against {trained['control'][name]:,}"
        for name in ("samples", "steps")
        if trained["tuned"].get(name) != trained["control"].get(name)
    ]
    return f"The control is not equal in size ({'; '.join(differences)})." if differences else None


def dropped_samples(report: dict[str, Any]) -> list[str]:
    """For each arm, what was selected for SFT and dropped, and why."""
    return [
        f"SFT ({arm}) uses {sum(counts.values()):,} samples fewer than were selected: "
        + "; ".join(f"{n:,} because {DROP_REASONS[Dropped(name)]}" for name, n in counts.items())
        + "."
        for arm, counts in report["dropped"].items()
        if counts
    ]


def evaluation_caveats(report: dict[str, Any]) -> list[str]:
    """Items without a score, items that nothing decided, benchmarks without a score."""
    arms = list(report["means"])

    def by_arm(*names: str) -> str:
        """`3 of base, 1 of tuned`: the first count minus the others, without zeros."""
        counts = {
            arm: sum(score.get(names[0], 0) for score in report[arm].values())
            - sum(score.get(name, 0) for score in report[arm].values() for name in names[1:])
            for arm in arms
        }
        return ", ".join(f"{count:,} of {arm}" for arm, count in counts.items() if count)

    sentences = []
    if counts := by_arm("no_response"):
        sentences.append(
            f"Some benchmark items got no response from the engine: {counts}. They are in no mean; "
            "the same command requests them again."
        )
    if counts := by_arm("skipped"):
        sentences.append(
            "Some benchmark items were skipped, because their image is missing or cannot be read: "
            f"{counts}. They are in no mean and are not requested again."
        )
    if counts := by_arm("failed", "undecided", "skipped", "no_response"):
        sentences.append(
            f"Some benchmark items got no grade, because the judge failed: {counts}. The same "
            "command queries only the judge again."
        )
    undecided = by_arm("undecided")
    if any(score.get("rules_only") for arm in arms for score in report[arm].values()):
        sentences.append(
            "Scores are by rules only (evaluate.judge=none): what no rule decides counts as "
            f"incorrect ({undecided or 'no item'}). They cannot be compared with scores that used "
            "a judge."
        )
    elif undecided:
        sentences.append(
            "Some benchmark items count as incorrect, because neither a rule nor a usable reply of "
            f"the judge decided them: {undecided}."
        )
    without_score: dict[str, list[str]] = {}
    for arm in arms:
        for name, score in report[arm].items():
            if score.get("reason"):
                sentence = f"{name} has no score: {score['reason']}"
                without_score.setdefault(sentence, []).append(arm)
    return sentences + [f"{sentence} ({', '.join(a)})." for sentence, a in without_score.items()]


def contamination_caveats(report: dict[str, Any]) -> list[str]:
    """Whether benchmark images or items were found among the training samples."""
    result = report.get("contamination")
    if result is None:
        return ["Training samples were not compared with the items of any benchmark."]
    sentences = []
    if absent := result["absent"]:
        sentences.append(
            f"Training samples were not compared with {', '.join(absent)}: no items of these "
            "official benchmarks are available here."
        )
    sentences += [
        f"Training samples were not compared with {name}: {reason}."
        for name, reason in result.get("not_checked", {}).items()
    ]
    scope = (
        f"{result['samples']:,} samples were compared with {sum(result['checked'].values()):,} "
        "items"
    )
    hits = result["hits"]
    if not hits:
        return [*sentences, f"{scope} of {', '.join(result['checked'])}; none is in both."]
    named = "; ".join(
        f"{hit['sample_id']} ({hit['kind']}: {hit['item']})" for hit in hits[:MAX_NAMED_HITS]
    )
    rest = len(hits) - MAX_NAMED_HITS
    more = f" and {rest:,} more in report.json" if rest > 0 else ""
    trained = sum(hit["trained"] for hit in hits)
    return [
        *sentences,
        f"{scope}: {len(hits):,} are in both, {trained:,} of which were trained on: {named}{more}.",
    ]
