"""report.html: one file that needs no other, with a few example samples of each stratum.

The template escapes everything a model generated; images are inline. Examples are taken in the
order of their content hash, tasks in turn, so that nobody picks them.
"""

# pandas' stubs make a union of every chain of attributes, so these say nothing here:
# pyright: reportArgumentType=false, reportCallIssue=false

from base64 import b64encode
from dataclasses import dataclass
from importlib import resources
from string import ascii_uppercase
from typing import Any

import jinja2
import pandas as pd

from difftrain.records import Rollout, Sample, View
from difftrain.report import caveats, plots, selection_report, tables, text, train_summary
from difftrain.report.inputs import RunData, RunInputs, read_columns

MAX_QUARANTINE_ROWS = 12
MAX_RESPONSE_CHARS = 700
"""The middle of a longer response is left out."""


def render_template(template: str, **values: Any) -> str:
    """An HTML page from a template and the values it names; `css` is added."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    css = (resources.files("difftrain.report") / "page.css").read_text()
    return environment.from_string(template).render(css=css, **values)


def render_page(inputs: RunInputs, data: RunData, report: dict[str, Any]) -> str:
    """The whole page as HTML."""
    settings, measure, samples = report["settings"], report["measure"], data.samples
    return render_template(
        (resources.files("difftrain.report") / "page.html.jinja").read_text(),
        report=report,
        caveats=caveats,
        text=text,
        tables=tables,
        selection=selection_report,
        training=train_summary,
        figures={
            "benchmarks": plots.benchmark_scores(report, tables.arms(report)),
            "training": plots.training_curves(data.logs),
            "strata": plots.strata_by_task(samples, measure),
            "survival": plots.survival_by_task(samples, settings),
            "two_measures": plots.pism_against_cmab(samples, settings, measure),
            "cmab": plots.cmab_histogram(samples, settings),
            "funnel": selection_report.funnel_figure(report),
        },
        examples=examples_by_stratum(inputs, data, settings["report"]["examples"]),
        without_cmab=int(samples["cmab"].isna().sum()) if "cmab" in samples else 0,
        settings={key: text.format_value(value) for key, value in text.flatten(settings).items()},
        quarantine=data.quarantine[:MAX_QUARANTINE_ROWS],
        stratum_colors=plots.STRATUM_COLORS,
        arm_colors=plots.ARM_COLORS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleResponse:
    """The first response under one view, and how many of all responses there were correct."""

    mask_percent: int
    response: str
    verdict: str
    hit_eos: bool
    correct: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A sample as it is shown. `images` are data: addresses, `failure_ratio` is a fraction."""

    sample_id: str
    stratum: str
    task: str
    images: list[str]
    question: str
    options: list[tuple[str, str]]
    gold_answer: str
    reason: str | None
    selected: bool
    failure_ratio: float | None
    has_pism: bool
    cmab: float | None
    full_image: ExampleResponse | None
    text_only: ExampleResponse | None
    masked: ExampleResponse | None


def examples_by_stratum(inputs: RunInputs, data: RunData, count: int) -> dict[str, list[Example]]:
    """Up to `count` examples of each stratum, read from disk with images and responses."""
    ids_by_stratum = example_ids(data.samples, str(inputs.settings["difficulty"]["measure"]), count)
    ids = [sample_id for members in ids_by_stratum.values() for sample_id in members]
    if not ids:
        return {}
    names = ["sample_id", "images", "question", "options", "answer"]
    contents = read_columns(inputs.data, Sample, names, ids).set_index("sample_id")
    names = ["sample_id", "view", "mask_percent", "draw", "response", "hit_eos", "verdict"]
    rollouts = read_columns(inputs.probe, Rollout, names, ids)
    scores = data.samples.set_index("sample_id")
    selections = data.selections["tuned"].drop_duplicates("sample_id").set_index("sample_id")
    reasons = data.decisions.set_index("sample_id")["reason"].to_dict()
    reasons |= selections["reason"].to_dict()
    return {
        stratum: [
            build_example(
                contents.loc[sample_id],
                scores.loc[sample_id],
                rollouts[rollouts["sample_id"] == sample_id],
                stratum=stratum,
                reason=reasons.get(sample_id),
                selected=sample_id in selections.index,
            )
            for sample_id in members
        ]
        for stratum, members in ids_by_stratum.items()
    }


def example_ids(samples: pd.DataFrame, measure: str, count: int) -> dict[str, list[str]]:
    """Up to `count` sample ids of each stratum, tasks in turn, by content hash within each."""
    ids = {}
    ordered = samples.sort_values("sample_id")
    for stratum, members in ordered.groupby(f"{measure}_stratum", sort=False):
        turns = members.assign(turn=members.groupby("task").cumcount())
        first = turns.sort_values(["turn", "sample_id"])["sample_id"].head(count)
        ids[str(stratum)] = first.tolist()
    return ids


def build_example(
    content: pd.Series,
    scores: pd.Series,
    rollouts: pd.DataFrame,
    *,
    stratum: str,
    reason: str | None,
    selected: bool,
) -> Example:
    """One sample with responses to the full image and at the mask ratio where it first failed.

    A sample that never fails shows the highest ratio that was generated.
    """
    by_view = {view: rollouts[rollouts["view"] == view] for view in View}
    failure_ratio, masked = value_or_none(scores, "pism"), by_view[View.masked]
    if failure_ratio is not None:
        mask_percent = round(100 * failure_ratio)
    else:
        mask_percent = 0 if masked.empty else int(masked["mask_percent"].max())
    return Example(
        sample_id=str(content.name),
        stratum=stratum,
        task=str(scores["task"]),
        images=[f"data:image/png;base64,{b64encode(png).decode()}" for png in content["images"]],
        question=content["question"],
        options=list(zip(ascii_uppercase, content["options"], strict=False)),
        gold_answer=content["answer"],
        reason=reason,
        selected=selected,
        failure_ratio=failure_ratio,
        has_pism="pism" in scores,
        cmab=value_or_none(scores, "cmab"),
        full_image=first_response(by_view[View.full_image], 0),
        text_only=first_response(by_view[View.text_only], 0),
        masked=first_response(masked, mask_percent) if mask_percent else None,
    )


def first_response(rollouts: pd.DataFrame, mask_percent: int) -> ExampleResponse | None:
    """The first draw under one mask ratio; None if nothing was generated there."""
    draws = rollouts[rollouts["mask_percent"] == mask_percent].sort_values("draw")
    if draws.empty:
        return None
    first = draws.iloc[0]
    return ExampleResponse(
        mask_percent=mask_percent,
        response=shorten(first["response"]),
        verdict=str(first["verdict"]),
        hit_eos=bool(first["hit_eos"]),
        correct=int((draws["verdict"] == "correct").sum()),
        total=len(draws),
    )


def shorten(response: str) -> str:
    """A response of at most MAX_RESPONSE_CHARS; both its ends are kept."""
    if len(response) <= MAX_RESPONSE_CHARS:
        return response
    half = MAX_RESPONSE_CHARS // 2
    omitted = len(response) - 2 * half
    return f"{response[:half]} [\u2026 {omitted:,} characters \u2026] {response[-half:]}"


def value_or_none(scores: pd.Series, measure: str) -> float | None:
    """A measure's value; None if it is missing."""
    value = scores.get(measure)
    return None if value is None or pd.isna(value) else float(value)
