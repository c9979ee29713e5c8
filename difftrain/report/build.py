"""Build a run's report from its files, and write it as report.json, report.md and report.html.

Scores are fractions of 1. text.py writes the sentences and tables, html.py writes report.html.
"""

# pandas' stubs type most expressions as wide unions, so that pyright's reports are wrong here:
# pyright: reportArgumentType=false, reportCallIssue=false

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from difftrain.config.difficulty import Until
from difftrain.data.quarantine import RejectedRow
from difftrain.grade import reward_hacking
from difftrain.model import family
from difftrain.pipeline import manifest
from difftrain.records import Measure, Stratum
from difftrain.report.flow import rounds_summary
from difftrain.report.html import render_page
from difftrain.report.inputs import RunData, RunInputs, by_round, load_run
from difftrain.report.sampling import summarize_groups
from difftrain.report.text import DIVERGENCE, render_markdown

# Compared arms. base: the untrained model; control: trained on randomly selected samples.
ARM_PAIRS = (("tuned", "base"), ("tuned", "control"), ("control", "base"))
SECRET_NAME = re.compile(r"(^|[_-])(key|secret|password|token|credentials?)$", re.IGNORECASE)
SECRET_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
MAX_CHANGED_SAMPLES = 50  # listed samples whose stratum the chance correction changes
COUNT_PREFIX = "completions/count/"  # such a column counts the responses of a task or stratum
ACCURACY = "rewards/accuracy/mean"


def write_report(inputs: RunInputs) -> dict[str, Any]:
    """Write report.json, report.md and report.html; returns the content of report.json.

    Raises MissingArtifact if a stage is not finished; then nothing is written.
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
    measure, data_settings = str(settings["difficulty"]["measure"]), settings["data"]
    source = str(data_settings["source"])
    counts = {stage: content["counts"] for stage, content in data.manifests.items()}
    trained = {arm: training_counts(inputs, data, arm) for arm in inputs.arms}
    sft_arms = [arm for arm, folders in inputs.arms.items() if folders.sft]
    # With select.rap, each measure in turn removes samples; the funnel counts those that remain.
    rap_steps = [] if settings["select"]["random"] else [*map(str, settings["select"]["rap"])]
    funnel = counts["select tuned"].get("funnel") if rap_steps else None
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
        "data": data_settings["path"] if source in ("jsonl", "auto") else source,
        "measure": measure,
        "counts": sample_counts(data, measure, settings),
        "other_measures": {
            name: stratum_counts(data.samples[f"{name}_stratum"])
            for name in data.measures
            if name != measure and bool(data.samples[f"{name}_stratum"].count())
        },
        "gen_difficulty": gen_difficulty_by_stratum(data, measure),
        "funnel": None if funnel is None else {"steps": rap_steps, **funnel},
        "chance_correction": chance_correction(data),
        "retest": data.retest,
        "means": {arm: summary["mean"] for arm, summary in data.summaries.items()},
        "differences": differences_by_pair(inputs.differences),
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
            arm: summarize_training(log, eval_sizes(inputs, data, arm))
            for arm, log in data.logs.items()
        },
        "stages": {
            stage: {"folder": folder.name, "finished_at": data.manifests[stage].get("finished_at")}
            for stage, folder in inputs.stages().items()
        },
        "family": model_family(settings, data.manifests),
        "versions": versions(data.manifests),
        "settings": settings,
    }
    if rounds := rounds_summary(inputs, data):
        report["rounds"] = rounds
    for arm, summary in data.summaries.items():
        for name, row in summary.items():
            in_range = row["score"] is None or 0 <= row["score"] <= 1
            assert in_range, f"{name}: score {row['score']} is not a fraction of 1"
        report[arm] = {name: row for name, row in summary.items() if name != "mean"}
    return report


def training_counts(inputs: RunInputs, data: RunData, arm: str) -> dict[str, Any]:
    """The counts of an arm's GRPO; over several rounds, their sums.

    So a sample that is selected in two rounds counts twice. Every round holds out its own samples;
    `eval_samples` are those of the last one.
    """
    counts_by_round = round_counts(inputs, data, arm)
    counts = dict(counts_by_round[-1])
    if len(counts_by_round) > 1:
        summed = [key for key, value in counts.items() if isinstance(value, int | float)]
        counts |= {
            key: sum(row[key] for row in counts_by_round) for key in summed if key != "eval_samples"
        }
    return counts


def round_counts(inputs: RunInputs, data: RunData, arm: str) -> list[dict[str, Any]]:
    """The counts of an arm's GRPO in each round."""
    names = [name for name in inputs.stages() if name.partition(",")[0] == f"train {arm}"]
    return [data.manifests[name]["counts"] for name in names]


def eval_sizes(inputs: RunInputs, data: RunData, arm: str) -> list[int]:
    """The number of held-out samples of each round."""
    return [int(counts.get("eval_samples", 0)) for counts in round_counts(inputs, data, arm)]


def model_family(settings: dict[str, Any], manifests: Mapping[str, Any]) -> dict[str, Any]:
    """The model's type, whether the papers set the thresholds for it, and the measured layers.

    All are None if the model's config.json cannot be read here, and `layers` if all layers count.
    """
    model = family.read_config(settings["model"]["name"], settings["model"].get("revision"))
    model_type = (model or {}).get("model_type")
    attention = (manifests.get("attention") or {}).get("settings") or {}
    return {
        "model_type": model_type,
        "calibrated": None if model is None else family.is_calibrated(model_type),
        "layers": attention.get("cmab_layers"),
        "ace_layer": attention.get("ace_layer"),
    }


def hide_secrets(settings: Any) -> Any:
    """The settings with `hidden` for strings named like `hub_token` and for passwords in URLs."""
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


def sample_counts(data: RunData, measure: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The numbers of rows that were read, quarantined (rejected), in each stratum, and selected.

    Fails if the numbers do not add up. `picks_strata` counts the selected samples of each stratum,
    by arm; if an arm has two training stages, by `arm, stage`.
    """
    totals = dict(data.manifests["data"]["counts"])
    unscored = Counter(RejectedRow(**row).short_reason for row in data.unscored)
    totals["samples"] -= unscored.total()
    totals["quarantined"] += unscored.total()
    strata = data.samples.set_index("sample_id")[f"{measure}_stratum"]
    assert totals["samples"] == len(strata), f"{len(strata)} samples, but manifest.json: {totals}"
    assert totals["quarantined"] == len(data.quarantine), (
        f"{len(data.quarantine)} lines in quarantine.jsonl, but manifest.json says {totals}"
    )
    assert totals["rows"] == totals["samples"] + totals["quarantined"], f"wrong totals: {totals}"
    picks_strata = {}
    for arm, selections in data.selections.items():
        stages = list(selections.groupby("stage", sort=False)["sample_id"])
        for stage, sample_ids in stages:
            name = arm if len(stages) == 1 else f"{arm}, {stage}"
            picks_strata[name] = stratum_counts(strata.loc[sample_ids])
    counts: dict[str, Any] = {
        "samples": totals["rows"],
        "quarantined": totals["quarantined"],
        "quarantine_reasons": totals.get("reasons", {}) | dict(unscored),
        "strata": stratum_counts(strata),
        "picks": data.selections["tuned"]["stage"].value_counts().to_dict(),
        "picks_strata": picks_strata,
        "verdicts": data.rollouts["verdict"].value_counts().to_dict(),
        "missing_values": {
            name: int(data.samples[name].isna().sum())
            for name in data.measures
            if name != Measure.pism  # None is a result here: the sample never failed
        },
        "censored": count_censored(data, settings),
        "truncated": int((~data.rollouts["hit_eos"].astype(bool)).sum()),
    }
    if "control" in data.selections:
        counts["control_picks"] = data.selections["control"]["stage"].value_counts().to_dict()
    return counts


def count_censored(data: RunData, settings: dict[str, Any]) -> int:
    """How many samples have a PISM stratum, but no exact failure ratio (probe.until=stratum).

    None is also the value of a sample that never fails; here such easy samples count too.
    """
    if "pism" not in data.samples or settings["probe"]["until"] != Until.stratum:
        return 0
    return int((data.samples["pism"].isna() & data.samples["pism_stratum"].notna()).sum())


def stratum_counts(strata: pd.Series) -> dict[str, int]:
    """The number of samples in each stratum; `unplaced` counts samples without a stratum."""
    counts = {stratum.value: int((strata == stratum).sum()) for stratum in Stratum}
    if unplaced := int(strata.isna().sum()):
        counts["unplaced"] = unplaced
    assert sum(counts.values()) == len(strata), f"{len(strata)} samples, but strata {counts}"
    return counts


def gen_difficulty_by_stratum(data: RunData, measure: str) -> dict[str, Any]:
    """By stratum, the mean of gen_difficulty (0: generated as an easy sample, 1: as a hard one) and
    the share of samples that require the image. Empty unless difftrain generated the data.
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
    """Responses and tokens that all rounds' probes generated, and seconds of stages.

    `seconds` has sums over arms by kind of stage; its `train` includes SFT. `by_stage` has each
    stage alone. A stage that an earlier run finished counts, too: its manifest has the seconds.
    So does the training of a round that ended without a result.
    """
    manifests = data.manifests
    seconds, by_stage, names = Counter[str](), {}, ("generations", "tokens", "steps")
    probed = [
        content["counts"] for stage, content in manifests.items() if kind_of(stage) == "probe"
    ]
    for stage, content in manifests.items():
        seconds[kind_of(stage)] += content["seconds"]
        counts = {name: content["counts"][name] for name in names if name in content["counts"]}
        by_stage[stage] = {"seconds": content["seconds"]} | counts
    for arm, content in data.unused_trainings.items():  # its steps are not those of the result
        counts = {name: content["counts"][name] for name in ("generations", "tokens")}
        by_stage[f"train {arm}, unused"] = {"seconds": content["seconds"]} | counts
        seconds["train"] += content["seconds"]
    kinds = ("probe", "score", "train", "evaluate", "sft", "attention", "likelihood")
    by_kind = {kind: seconds[kind] for kind in kinds if kind in seconds}
    by_kind["train"] += seconds["sft"]
    cost: dict[str, Any] = {
        "generations": sum(counts["generations"] for counts in probed),
        "tokens": sum(counts["tokens"] for counts in probed),
        "seconds": {kind: round(total, 3) for kind, total in by_kind.items()},
        "by_stage": by_stage,
    }
    if Measure.pism in data.measures:
        mask_percents, num_draws = settings["probe"]["mask_percents"], settings["probe"]["draws"]
        generated = data.rollouts["view"].isin(["full_image", "masked"]).sum()
        # The full grid: every draw (sampled response) at every mask ratio, without early stopping.
        cost["full_grid"] = len(data.samples) * len(mask_percents) * num_draws
        cost["share_of_grid"] = float(generated / cost["full_grid"])
    return cost


def kind_of(stage: str) -> str:
    """The kind of a stage, such as `train` of `train tuned, round 2`."""
    return stage.partition(",")[0].partition(" ")[0]


def differences_by_pair(differences: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The differences of ARM_PAIRS. If a run has only `b - a`, its signs are reversed."""
    by_pair = {}
    for after, before in ARM_PAIRS:
        if row := differences.get(f"{after} - {before}"):
            by_pair[f"{after} - {before}"] = row
        elif row := differences.get(f"{before} - {after}"):
            reversed_values = {"mean": -row["mean"], "low": -row["high"], "high": -row["low"]}
            by_pair[f"{after} - {before}"] = row | reversed_values
    return by_pair


def contamination(inputs: RunInputs, data: RunData) -> dict[str, Any] | None:
    """contamination.json or None. `trained` says of each hit if the sample was trained on."""
    if inputs.contamination is None:
        return None
    result = manifest.read_json(inputs.contamination / "contamination.json")
    selections = [data.selections, *data.round_selections]
    trained = {*pd.concat([rows["sample_id"] for arms in selections for rows in arms.values()])}
    hits = [hit | {"trained": hit["sample_id"] in trained} for hit in result["hits"]]
    return result | {"hits": hits}


def versions(manifests: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Package versions and git revision; `a and b` if the stages used different ones."""
    by_name: dict[str, list[str]] = {}
    for stage in manifests.values():
        revision = stage.get("git_revision") or "unknown"
        for name, version in (stage.get("versions", {}) | {"git revision": revision}).items():
            by_name.setdefault(name, []).append(version)
    return {name: " and ".join(dict.fromkeys(used)) for name, used in by_name.items()}


def chance_correction(data: RunData) -> dict[str, Any] | None:
    """How strata change if the measure PISM allows for correct guesses; None if it does not.

    `labels` counts samples by both strata: {uncorrected: {corrected: count}}.
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
    changed_share = pd.Series(by_task["changed"] / by_task["n"])
    most_affected = changed_share.sort_values(ascending=False, kind="stable")
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


def summarize_training(log: pd.DataFrame, eval_samples: Sequence[int]) -> dict[str, dict[str, Any]]:
    """A log's rewards, its signs of reward hacking, and the mean seconds (by phase) and tokens of a
    step. `eval_samples`: the number of held-out samples in each round."""
    if log.empty:
        return {"rewards": {}, "alarms": {}, "seconds": {}, "tokens": {}}
    cost = {
        kind: log.filter(like=f"{kind}/").mean().rename(lambda key: key.split("/")[1]).to_dict()
        for kind in ("seconds", "tokens")
    }
    groups = summarize_groups(log)
    summary = {"rewards": rewards_by_subset(log), "alarms": alarms(log, eval_samples), **cost}
    return summary | ({"groups": groups} if groups else {})


def rewards_by_subset(log: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """By task or stratum: the number of responses; mean reward in the first and last third."""

    def mean_reward(steps: pd.DataFrame) -> float | None:
        counts = steps[COUNT_PREFIX + subset]
        sums, total = (steps[f"{ACCURACY}/{subset}"] * counts).sum(), float(counts.sum())
        return float(sums) / total if total else None

    third, rewards = max(1, len(log) // 3), {}
    for column in sorted(log.filter(regex=f"^{COUNT_PREFIX}")):
        subset = column.removeprefix(COUNT_PREFIX)
        rewards[subset] = {
            "responses": float(log[column].sum()),
            "first": mean_reward(log.head(third)),
            "last": mean_reward(log.tail(third)),
        }
    return rewards


def logged_values(log: pd.DataFrame, name: str) -> list[float]:
    """The values of a column, without the steps that do not have it; none without the column."""
    return log[name].dropna().astype(float).tolist() if name in log else []


def alarms(log: pd.DataFrame, eval_samples: Sequence[int]) -> dict[str, dict[str, Any]]:
    """By sign of reward hacking: its largest share of responses, and its first step (or None)."""
    results: dict[str, dict[str, Any]] = {}
    for alarm, limit in reward_hacking.ALARM_LIMITS.items():
        shares = logged_values(log, f"alarms/{alarm}")
        index = reward_hacking.first_alarm(shares, limit)
        results[alarm.value] = {
            "max_share": max(reward_hacking.window_means(shares), default=None),
            "limit": limit,
            "step": None if index is None else int(log["step"].iloc[index]),
        }
    results[DIVERGENCE] = divergence(log, eval_samples)
    return results


def divergence(log: pd.DataFrame, eval_samples: Sequence[int]) -> dict[str, Any]:
    """Whether the reward rose while the held-out accuracy fell, within any round.

    Each round is judged by itself, because it trains on other samples and holds out others. `first`
    and `last` are the accuracies of the first such round, else of the last one with any.
    """
    result: dict[str, Any] = {"raised": None, "first": None, "last": None}
    for number, (steps, size) in enumerate(zip(by_round(log), eval_samples, strict=True), 1):
        accuracy = logged_values(steps, f"eval_{ACCURACY}")
        if accuracy and not result["raised"]:
            raised = reward_hacking.reward_diverges(logged_values(steps, "reward"), accuracy, size)
            raised = result["raised"] if raised is None else raised
            result = {"raised": raised, "first": accuracy[0], "last": accuracy[-1]}
            if len(eval_samples) > 1:
                result["round"] = number
    return result
