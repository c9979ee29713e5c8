"""Render report.html, with examples of samples from each stratum.

The page is one file that loads nothing else. Images are inline, and responses are escaped. Nobody
hand-picks the examples: they are the first samples by id (a hash), and the tasks take turns. The
page's size does not grow with the pool: large images are shown smaller, and many points are pixels.
"""

# pandas' stubs type most expressions as wide unions, so that pyright's reports are wrong here:
# pyright: reportArgumentType=false, reportCallIssue=false

from base64 import b64encode
from io import BytesIO
from string import ascii_uppercase
from typing import Any

import pandas as pd

from difftrain.images import from_png
from difftrain.records import Rollout, Sample, View
from difftrain.report import flow, overview, plots, study, text
from difftrain.report.inputs import RunData, RunInputs, json_lines, read_columns
from difftrain.report.sampling import sampling_figure

MAX_QUARANTINE_ROWS = 12
MAX_RESPONSE_CHARS = 700  # the middle of a longer response is left out
MAX_PNG_BYTES = 30_000  # a larger image is shown as a JPEG within THUMBNAIL_SIZE
THUMBNAIL_SIZE = (640, 320)


def render_page(inputs: RunInputs, data: RunData, report: dict[str, Any]) -> str:
    """The whole page as HTML."""
    settings, measure, samples = report["settings"], report["measure"], data.samples
    page = text.templates().get_template("page.html.jinja")
    examples = examples_by_stratum(inputs, data, settings["report"]["examples"])
    prompt_logs = {
        arm: [json_lines(folder / "prompt_log.jsonl") for folder in inputs.train_folders(arm)]
        for arm in inputs.arms
    }
    return page.render(
        report=report,
        figures={
            "benchmarks": plots.benchmark_scores(report),
            "training": plots.training_curves(data.logs),
            "sampling": sampling_figure(data.logs, prompt_logs),
            "strata": plots.strata_by_task(samples, measure),
            "without_failure": plots.shares_without_failure(samples, settings),
            "two_measures": plots.pism_against_cmab(samples, settings, measure),
            "cmab": plots.cmab_histogram(samples, settings),
            "funnel": plots.funnel_figure(report),
            "flow": flow.strata_flow(data.round_scores),
            "samples": overview.sample_flow(report),
            "ladders": overview.failure_ladders(examples, settings),
            "survival": overview.survival_curve(samples, settings),
            "times": overview.stage_times(report),
            "study": study.figure() if study.sentences(settings) else None,
        },
        examples=examples,
        without_cmab=int(samples["cmab"].isna().sum()) if "cmab" in samples else 0,
        settings={key: text.format_value(value) for key, value in text.flatten(settings).items()},
        quarantine=data.quarantine[:MAX_QUARANTINE_ROWS],
        stratum_colors=plots.STRATUM_COLORS,
        arm_colors=plots.ARM_COLORS,
    )


def examples_by_stratum(
    inputs: RunInputs, data: RunData, max_examples: int
) -> dict[str, list[dict[str, Any]]]:
    """Up to `max_examples` samples of each stratum, read from disk with images and responses."""
    stratum_column = f"{inputs.settings['difficulty']['measure']}_stratum"
    by_stratum = data.samples.sort_values("sample_id").groupby(stratum_column, sort=False)
    ids_by_stratum: dict[str, list[str]] = {}
    for stratum, members in by_stratum:
        rank_in_task = members.groupby("task").cumcount()  # sorted by it, the tasks take turns
        first = rank_in_task.sort_values(kind="stable").index[:max_examples]
        ids_by_stratum[str(stratum)] = members.loc[first, "sample_id"].tolist()
    ids = [sample_id for members in ids_by_stratum.values() for sample_id in members]
    if not ids:
        return {}
    names = ["sample_id", "images", "question", "options", "answer"]
    samples = read_columns(inputs.data, Sample, names, ids).set_index("sample_id")
    names = ["sample_id", "view", "mask_percent", "draw", "response", "hit_eos", "verdict"]
    names += ["parsed_answer", "parsed_gold", "rule"]
    rollouts = read_columns(inputs.probe, Rollout, names, ids)
    scores = data.samples.set_index("sample_id")
    selected = data.selections["tuned"].drop_duplicates("sample_id").set_index("sample_id")
    reasons = data.decisions.set_index("sample_id")["reason"].to_dict()
    reasons |= selected["reason"].to_dict()
    pass_rates = data.pass_rates.set_index("sample_id").to_dict("index")

    def example(sample_id: str) -> dict[str, Any]:
        sample = samples.loc[sample_id]
        return {
            "sample_id": sample_id,
            "task": str(scores.loc[sample_id]["task"]),
            "images": [image_url(png) for png in sample["images"]],
            "question": sample["question"],
            "options": list(zip(ascii_uppercase, sample["options"], strict=False)),
            "gold_answer": sample["answer"],
            "reason": reasons.get(sample_id),
            "selected": sample_id in selected.index,
            "pass_rate": pass_rates.get(sample_id),
            **example_responses(
                scores.loc[sample_id], rollouts[rollouts["sample_id"] == sample_id]
            ),
        }

    return {stratum: list(map(example, members)) for stratum, members in ids_by_stratum.items()}


def image_url(png: bytes) -> str:
    """The image as a `data:` URL; a large one as a smaller JPEG."""
    kind, content = "png", png
    if len(png) > MAX_PNG_BYTES:
        image, buffer = from_png(png), BytesIO()
        image.thumbnail(THUMBNAIL_SIZE)
        image.save(buffer, "JPEG", quality=80)
        kind, content = "jpeg", buffer.getvalue()
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def example_responses(scores: pd.Series, rollouts: pd.DataFrame) -> dict[str, Any]:
    """A sample's scores, and its first response to the full image, a masked image, and no image.

    The failure ratio is PISM's score: the share of the image that was masked when the model first
    failed. This masked image is shown; if the model never failed, the most masked one.
    """
    known_scores: dict[str, Any] = scores.dropna().to_dict()
    failure_ratio = known_scores.get("pism")
    masked = rollouts[rollouts["view"] == View.masked]
    with_image = rollouts[rollouts["view"] != View.text_only]
    draws = with_image.groupby("mask_percent")["verdict"]
    most_masked = masked["mask_percent"].max()  # NaN without masked images
    mask_percent = most_masked if failure_ratio is None else round(100 * failure_ratio)
    return {
        "failure_ratio": failure_ratio,
        "has_pism": "pism" in scores,
        "draws": {  # for each mask ratio in percent, how many responses are correct, of how many
            percent: (int((verdicts == "correct").sum()), len(verdicts))
            for percent, verdicts in draws
        },
        "cmab": known_scores.get("cmab"),  # attention to the image, relative to the text
        "image_gain": known_scores.get("image_gain"),
        "full_image": first_response(rollouts[rollouts["view"] == View.full_image], 0),
        "text_only": first_response(rollouts[rollouts["view"] == View.text_only], 0),
        "masked": first_response(masked, mask_percent),
    }


def first_response(rollouts: pd.DataFrame, mask_percent: float) -> dict[str, Any] | None:
    """The first response with this percentage masked, and how many such responses are correct."""
    draws = rollouts[rollouts["mask_percent"] == mask_percent].sort_values("draw")
    if draws.empty:
        return None
    first, half = draws.iloc[0], MAX_RESPONSE_CHARS // 2
    response = str(first["response"])
    if len(response) > MAX_RESPONSE_CHARS:
        omitted = f"[\u2026 {len(response) - 2 * half:,} characters \u2026]"
        response = f"{response[:half]} {omitted} {response[-half:]}"
    return {
        "mask_percent": int(first["mask_percent"]),
        "response": response,
        "verdict": str(first["verdict"]),
        "parsed_answer": first["parsed_answer"],
        "parsed_gold": first["parsed_gold"],
        "rule": first["rule"],
        "hit_eos": bool(first["hit_eos"]),
        "correct": int((draws["verdict"] == "correct").sum()),
        "total": len(draws),
    }
