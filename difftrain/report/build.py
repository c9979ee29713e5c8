"""Build the content of report.json from a run's files, and write the report.

Scores are fractions of 1. Not here: how the content is described (text.py) and shown (html.py).
"""

# pandas' stubs make a union of every chain of attributes, so these say nothing here:
# pyright: reportArgumentType=false, reportCallIssue=false

import re
from collections import Counter
from typing import Any

import pandas as pd

from difftrain.data.quarantine import RejectedRow
from difftrain.grade import reward_hacking
from difftrain.pipeline import manifest
from difftrain.records import Measure, Stratum
from difftrain.report.html import render_page
from difftrain.report.inputs import RunData, RunInputs, load_run
from difftrain.report.text import DIVERGENCE, render_markdown

PAIRS = (("tuned", "base"), ("tuned", "control"), ("control", "base"))
SECRET_NAME = re.compile(r"(^|[_-])(key|secret|password|token|credentials?)$", re.IGNORECASE)
SECRET_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
MAX_CHANGED_SAMPLES = 50
COUNT = "completions/count/"  # prefix: responses of a task or stratum in a step
ACCURACY = "rewards/accuracy/mean"


def write_report(inputs: RunInputs) -> dict[str, Any]:
    """Write report.json, report.md and report.html; returns the content of report.json.

    Raises MissingArtifact naming every unfinished stage; then nothing is written.
    """
    data = load_run(inputs)
    report = build_report(inputs, data)
    markdown = render_markdown("report.md.jinja", report=report)
    page = render_page(inputs, data, report)
    manifest.write_json(inputs.folder / "report.json", report)
    manifest.write_text(inputs.folder / "report.md", markdown)
    manifest.write_text(inputs.folder / "report.html", page)
    return report


def build_report(inputs: RunInputs, data: RunData) -> dict[str, Any]:
    """The content of report.json."""
    settings = hide_secrets(inputs.settings)
    measure, source = str(settings["difficulty"]["measure"]), settings["data"]
    counts = {stage: each["counts"] for stage, each in data.manifests.items()}
    trained = {arm: counts[f"train {arm}"] for arm in inputs.arms}
    sft_arms = [arm for arm, folders in inputs.arms.items() if folders.sft]
    steps = [] if settings["select"]["random"] else [*map(str, settings["select"]["rap"])]
    funnel = counts["select tuned"].get("funnel") if steps else None
    evaluation = {arm: {**data.manifests[f"evaluate {arm}"]["settings"]} for arm in data.summaries}
    for arm, evaluation_settings in evaluation.items():
        judge = counts[f"evaluate {arm}"].get("judge", {})
        if judge.get("calls") or judge.get("from_cache"):
            evaluation_settings["judge_counts"] = judge
    report: dict[str, Any] = {
        "name": settings["name"],
        "train_stages": str(settings["train_stages"]),
        "seed": settings["seed"],
        "model": settings["model"]["name"],
        "data": source["path"] if source["source"] == "jsonl" else str(source["source"]),
        "measure": measure,
        "counts": sample_counts(data, measure),
        "other_measures": {
            name: stratum_counts(data.samples[f"{name}_stratum"])
            for name in data.measures
            if name != measure and bool(data.samples[f"{name}_stratum"].count())
        },
        "gen_difficulty": gen_difficulty_by_stratum(data, measure),
        "funnel": None if funnel is None else {"steps": steps, **funnel},
        "chance_correction": chance_correction(data),
        "retest": data.retest,
        "means": {arm: summary["mean"] for arm, summary in data.summaries.items()},
        "differences": in_direction_of_pairs(inputs.differences),
        "cost": run_cost(data, settings),
        "contamination": contamination(inputs, data),
        "recipe_difference": hide_secrets(inputs.recipe_difference),
        "evaluation": hide_secrets(evaluation),
        "trained": trained,
        "dropped": {
            arm: Counter(counts[f"select_sft {arm}"]["dropped"])
            + Counter(counts[f"sft {arm}"]["dropped"])
            for arm in sft_arms
        },
        "sft": {arm: counts[f"sft {arm}"] for arm in sft_arms},
        "training": {
            arm: summarize_training(log, int(trained[arm].get("eval_samples", 0)))
            for arm, log in data.logs.items()
        },
        "stages": {
            stage: {"folder": folder.name, "finished_at": data.manifests[stage].get("finished_at")}
            for stage, folder in inputs.stages().items()
        },
        "versions": versions(data.manifests),
        "settings": settings,
    }
    for arm, summary in data.summaries.items():
        for name, row in summary.items():
            in_range = row["score"] is None or 0 <= row["score"] <= 1
            assert in_range, f"{name}: score {row['score']} is not a fraction of 1"
        report[arm] = {name: row for name, row in summary.items() if name != "mean"}
    return report


def hide_secrets(settings: Any) -> Any:
    """The settings without strings under names such as `hub_token`, and passwords in URLs."""
    if isinstance(settings, dict):
        return {
            name: "hidden"
            if SECRET_NAME.search(str(name)) and isinstance(value, str)
            else hide_secrets(value)
            for name, value in settings.items()
        }
    if isinstance(settings, list | tuple):
        return [hide_secrets(value) for value in settings]
    return SECRET_IN_URL.sub("hidden@", settings) if isinstance(settings, str) else settings


def sample_counts(data: RunData, measure: str) -> dict[str, Any]:
    """Rows read, quarantined, in each stratum, selected. No row may be lost.

    `picks_strata` has the strata of each arm's selection; with two training stages, of each stage
    as `arm, stage`.
    """
    rows = dict(data.manifests["data"]["counts"])
    unscored = Counter(RejectedRow(**row).short_reason for row in data.unscored)
    rows["samples"] -= unscored.total()
    rows["quarantined"] += unscored.total()
    strata = data.samples.set_index("sample_id")[f"{measure}_stratum"]
    assert rows["samples"] == len(strata), f"{len(strata)} samples, but manifest.json says {rows}"
    assert rows["quarantined"] == len(data.quarantine), (
        f"{len(data.quarantine)} lines in quarantine.jsonl, but manifest.json says {rows}"
    )
    assert rows["rows"] == rows["samples"] + rows["quarantined"], f"a row was lost: {rows}"
    picks_strata = {}
    for arm, selections in data.selections.items():
        stages = list(selections.groupby("stage", sort=False)["sample_id"])
        for stage, sample_ids in stages:
            name = arm if len(stages) == 1 else f"{arm}, {stage}"
            picks_strata[name] = stratum_counts(strata.loc[sample_ids])
    counts: dict[str, Any] = {
        "samples": rows["rows"],
        "quarantined": rows["quarantined"],
        "quarantine_reasons": rows.get("reasons", {}) | dict(unscored),
        "strata": stratum_counts(strata),
        "picks": data.selections["tuned"]["stage"].value_counts().to_dict(),
        "picks_strata": picks_strata,
        "verdicts": data.rollouts["verdict"].value_counts().to_dict(),
        "missing_values": {
            name: int(data.samples[name].isna().sum())
            for name in data.measures
            if name != Measure.pism  # there None means that the sample never fails
        },
        "truncated": int((~data.rollouts["hit_eos"].astype(bool)).sum()),
    }
    if "control" in data.selections:
        counts["control_picks"] = data.selections["control"]["stage"].value_counts().to_dict()
    return counts


def stratum_counts(strata: pd.Series) -> dict[str, int]:
    """Samples in each stratum; `unplaced` only if the measure could not place some."""
    counts = {stratum.value: int((strata == stratum).sum()) for stratum in Stratum}
    if unplaced := int(strata.isna().sum()):
        counts["unplaced"] = unplaced
    assert sum(counts.values()) == len(strata), f"strata {counts} of {len(strata)} samples"
    return counts


def gen_difficulty_by_stratum(data: RunData, measure: str) -> dict[str, Any]:
    """By stratum, the mean difficulty samples were generated with (0 simplest, 1 hardest), and the
    share that requires the image. Empty for data that were not generated here.
    """
    strata = {}
    samples = data.samples.dropna(subset=["gen_difficulty"])
    for stratum, group in samples.groupby(f"{measure}_stratum"):
        requires_image = group["requires_image"].dropna().astype(bool)
        strata[str(stratum)] = {
            "gen_difficulty": float(group["gen_difficulty"].mean()),
            "requires_image": float(requires_image.mean()) if len(requires_image) else None,
            "n": len(group),
        }
    return strata


def run_cost(data: RunData, settings: dict[str, Any]) -> dict[str, Any]:
    """What the run took; generations and tokens are the probe's, by_stage has those of all stages.

    Seconds are summed over arms, and `train` is SFT and GRPO; a stage that an earlier run made
    counts with the time it took then.
    """
    manifests = data.manifests
    seconds, by_stage, names = Counter[str](), {}, ("generations", "tokens", "steps")
    for stage, each in manifests.items():
        seconds[stage.split()[0]] += each["seconds"]
        counts = {name: each["counts"][name] for name in names if name in each["counts"]}
        by_stage[stage] = {"seconds": each["seconds"]} | counts
    kinds = ("probe", "score", "train", "evaluate", "sft", "attention")
    by_kind = {kind: seconds[kind] for kind in kinds if kind in seconds}
    by_kind["train"] += seconds["sft"]
    cost: dict[str, Any] = {
        "generations": manifests["probe"]["counts"]["generations"],
        "tokens": manifests["probe"]["counts"]["tokens"],
        "seconds": {kind: round(each, 3) for kind, each in by_kind.items()},
        "by_stage": by_stage,
    }
    if Measure.pism in data.measures:
        mask_percents, draws = settings["probe"]["mask_percents"], settings["probe"]["draws"]
        generated = data.rollouts["view"].isin(["full_image", "masked"]).sum()
        cost["full_grid"] = len(data.samples) * len(mask_percents) * draws
        cost["share_of_grid"] = float(generated / cost["full_grid"])
    return cost


def in_direction_of_pairs(differences: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The differences of PAIRS; one in the opposite direction gets the opposite signs."""
    directed = {}
    for after, before in PAIRS:
        if row := differences.get(f"{after} - {before}"):
            directed[f"{after} - {before}"] = row
        elif row := differences.get(f"{before} - {after}"):
            signs = {"mean": -row["mean"], "low": -row["high"], "high": -row["low"]}
            directed[f"{after} - {before}"] = row | signs
    return directed


def contamination(inputs: RunInputs, data: RunData) -> dict[str, Any] | None:
    """contamination.json, with whether a hit was trained on; None if nothing was checked."""
    if inputs.contamination is None:
        return None
    result = manifest.read_json(inputs.contamination / "contamination.json")
    trained = {*pd.concat([rows["sample_id"] for rows in data.selections.values()])}
    hits = [hit | {"trained": hit["sample_id"] in trained} for hit in result["hits"]]
    return result | {"hits": hits}


def versions(manifests: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Package versions over all stages; all are listed if stages differ."""
    by_name: dict[str, list[str]] = {}
    for stage in manifests.values():
        revision = stage.get("git_revision") or "unknown"
        for name, version in (stage.get("versions", {}) | {"git revision": revision}).items():
            by_name.setdefault(name, []).append(version)
    return {name: " and ".join(dict.fromkeys(several)) for name, several in by_name.items()}


def chance_correction(data: RunData) -> dict[str, Any] | None:
    """Strata with and without PISM's chance correction; None if there is none.

    `labels` counts samples by the uncorrected stratum and then the corrected one.
    """
    if data.uncorrected.empty:
        return None
    labels = data.samples[["sample_id", "task", "pism_stratum"]].merge(
        data.uncorrected[["sample_id", "stratum"]], on="sample_id"
    )
    labels = labels.rename(columns={"pism_stratum": "corrected", "stratum": "uncorrected"})
    assert len(labels) == len(data.samples), (
        f"{len(data.uncorrected)} uncorrected labels for {len(data.samples)} samples"
    )
    is_changed = labels["uncorrected"] != labels["corrected"]
    changed = labels[is_changed].sort_values("sample_id")
    by_task = is_changed.groupby(labels["task"]).agg(changed="sum", n="size")
    most_affected = (by_task["changed"] / by_task["n"]).sort_values(ascending=False, kind="stable")
    return {
        "samples": len(labels),
        "changed": len(changed),
        "labels": {
            str(stratum): rows["corrected"].value_counts().to_dict()
            for stratum, rows in labels.groupby("uncorrected")
        },
        "changed_by_task": by_task.loc[most_affected.index].to_dict("index"),
        "first_changed": changed.head(MAX_CHANGED_SAMPLES).to_dict("records"),
    }


def summarize_training(log: pd.DataFrame, eval_samples: int) -> dict[str, dict[str, Any]]:
    """Accuracy rewards of an arm by task and stratum, and its alarms; both empty without a log."""
    if log.empty:
        return {"rewards": {}, "alarms": {}}
    return {"rewards": rewards_by_subset(log), "alarms": alarms(log, eval_samples)}


def rewards_by_subset(log: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Responses and mean accuracy reward in the first and last third, by task and stratum."""

    def mean_reward(steps: pd.DataFrame) -> float | None:
        counts = steps[COUNT + subset]
        sums, total = (steps[f"{ACCURACY}/{subset}"] * counts).sum(), float(counts.sum())
        return float(sums) / total if total else None

    third, rewards = max(1, len(log) // 3), {}
    for column in sorted(log.filter(regex=f"^{COUNT}")):
        subset = column.removeprefix(COUNT)
        rewards[subset] = {
            "responses": float(log[column].sum()),
            "first": mean_reward(log.head(third)),
            "last": mean_reward(log.tail(third)),
        }
    return rewards


def alarms(log: pd.DataFrame, eval_samples: int) -> dict[str, dict[str, Any]]:
    """Each alarm with its largest share, its limit and the step it was first raised at (None)."""

    def present_values(name: str) -> list[float]:
        return log[name].dropna().astype(float).tolist() if name in log else []

    results: dict[str, dict[str, Any]] = {}
    for alarm, limit in reward_hacking.ALARM_LIMITS.items():
        shares = present_values(f"alarms/{alarm}")
        index = reward_hacking.first_alarm(shares, limit)
        results[alarm.value] = {
            "max_share": max(reward_hacking.window_means(shares), default=None),
            "limit": limit,
            "step": None if index is None else int(log["step"].iloc[index]),
        }
    held_out = present_values(f"eval_{ACCURACY}")
    results[DIVERGENCE] = {
        "raised": reward_hacking.reward_diverges(present_values("reward"), held_out, eval_samples),
        "first": held_out[0] if held_out else None,
        "last": held_out[-1] if held_out else None,
    }
    return results
