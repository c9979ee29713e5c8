"""report.json, report.md and report.html of a run, each whole or not at all."""

from typing import Any

from difftrain.pipeline import manifest
from difftrain.report import choosing, tables, training, words
from difftrain.report.compare import gather
from difftrain.report.inputs import RunInputs, load
from difftrain.report.page import page
from difftrain.report.tables import cell_text


def write(inputs: RunInputs) -> dict[str, Any]:
    """Write the three files into `inputs.folder`; returns the content of report.json.

    Raises MissingArtifact naming every stage that is not finished; then nothing is written.
    """
    loaded = load(inputs)
    report = gather(inputs, loaded)
    text, shown = markdown(report), page(inputs, loaded, report)
    manifest.write_json(inputs.folder / "report.json", report)
    manifest.write_text(inputs.folder / "report.md", text)
    manifest.write_text(inputs.folder / "report.html", shown)
    return report


def markdown(report: dict[str, Any]) -> str:
    """The report as text: headline, results, what was chosen, cost, settings."""
    difference = [f"* `{cell_text(line)}`" for line in report["recipe_difference"]]
    blocks = [
        f"# {report['name']}",
        words.headline(report) + " " + words.against_control(report),
        "\n".join(f"* {told}" for told in [*words.caveats(report), *training.told(report)]),
        "## Results",
        tables.results(report).markdown(),
        "Scores in percent with their 95 % intervals.",
        tables.differences(report).markdown(),
        "## Samples",
        f"Strata by {report['measure']}. {tables.unread(report)}",
        tables.counted(report).markdown(),
        *choice(report),
        *(["## Quarantine", tables.quarantined(report).markdown()] * bool(quarantine(report))),
        "## While training",
        training.alarm_table(report).markdown(),
        training.paid_table(report).markdown(),
        "## Cost",
        tables.cost(report).markdown(),
        tables.grid_share(report) or "",
        "## Settings beside the score",
        tables.beside_the_score(report).markdown(),
        "## What makes this row this row",
        "\n".join(difference) or "Nothing: every setting is the default.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def choice(report: dict[str, Any]) -> list[str]:
    """RAP's funnel and the labels with and without guessing, if there are; the second draws."""
    blocks = []
    if report["funnel"]:
        told = [
            f"* {name}: {left:,}. {gone}" for name, left, _, gone in choosing.bars(report["funnel"])
        ]
        blocks += [f"## Chosen by {choosing.title(report)}", "\n".join(told)]
        blocks += choosing.funnel_in_words(report)
    if report["guessing"]:
        changed = f"{report['guessing']['changed']:,} of {report['guessing']['samples']:,} samples"
        blocks += ["## Guessing", f"{changed} change their stratum when guessing is accounted for."]
        blocks += ["Unsolved may here also mean: cannot be told from guessing."]
        blocks += [choosing.both_labels(report).markdown()]
        blocks += [choosing.changed_by_task(report).markdown()]
    blocks += ["## Asked again with other seeds"]
    if report["reliability"] is None:
        return [*blocks, choosing.UNMEASURED]
    return [*blocks, choosing.steadiness(report).markdown(), choosing.overlap_in_words(report)]


def quarantine(report: dict[str, Any]) -> int:
    """Rows that could not become samples."""
    return report["counts"]["quarantined"]
