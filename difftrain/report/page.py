"""report.html: one file that needs no other, to be looked at more than read.

Everything a model said is escaped by the template; pictures are inline.
"""

from importlib import resources
from typing import Any

import jinja2

from difftrain.report import choosing, curves, plots, tables, training, words
from difftrain.report.examples import examples
from difftrain.report.inputs import Loaded, RunInputs
from difftrain.report.style import ARM_COLOURS, STRATUM_COLOURS

QUARANTINE_SHOWN = 12


def figures(report: dict[str, Any], loaded: Loaded) -> dict[str, str | None]:
    """Every picture of the page as the address of an inline SVG; None where there is none."""
    settings, measure = report["settings"], report["measure"]
    return {
        "benchmarks": curves.benchmarks(report, tables.arms(report)),
        "training": curves.training(loaded.logs),
        "strata": plots.strata_by_family(loaded.samples, measure),
        "surviving": plots.surviving(loaded.samples, settings),
        "two_measures": plots.two_measures(loaded.samples, settings, measure),
        "balances": plots.balances(loaded.samples, settings),
        "funnel": choosing.funnel_picture(report),
    }


def all_settings(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Every setting as (full.key, value)."""
    found = []
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            found += all_settings(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", tables.plain(value)))
    return found


def page(inputs: RunInputs, loaded: Loaded, report: dict[str, Any]) -> str:
    """The whole page as HTML."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    here = resources.files("difftrain.report")
    template = environment.from_string((here / "page.html.jinja").read_text())
    number = report["settings"]["report"]["examples"]
    return template.render(
        css=(here / "page.css").read_text(),
        report=report,
        words=words,
        tables=tables,
        choosing=choosing,
        training=training,
        figures=figures(report, loaded),
        examples=examples(inputs, loaded, number),
        without_balance=without_balance(loaded),
        settings=all_settings(report["settings"]),
        quarantine=loaded.quarantine[:QUARANTINE_SHOWN],
        stratum_colours=STRATUM_COLOURS,
        arm_colours=ARM_COLOURS,
    )


def without_balance(loaded: Loaded) -> int:
    """Samples that have no attention balance and so no place in the scatter."""
    samples = loaded.samples
    return len(samples) - len(samples.dropna(subset=["cmab"])) if "cmab" in samples else 0
