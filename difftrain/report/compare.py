"""Everything a run comes to, as one dictionary: the content of report.json.

Scores are fractions of 1. Not here: how they are told (words.py) and shown (tables.py, plots.py).
"""

# pandas' stubs make a union of every chain of attributes, so these say nothing here:
# pyright: reportArgumentType=false

import json
import re
from collections import Counter
from typing import Any

import pandas as pd

from difftrain.data.quarantine import RejectedRow
from difftrain.pipeline import parquet
from difftrain.records import Measure, Selection, Stratum
from difftrain.report import choosing
from difftrain.report.inputs import Loaded, RunInputs, load
from difftrain.report.training import training

PAIRS = (("tuned", "base"), ("tuned", "control"), ("control", "base"))
"""Which checkpoint is told against which."""
SECRET_NAME = re.compile(r"(^|[_-])(key|secret|password|token|credentials?)$", re.IGNORECASE)
SECRET_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")


def without_secrets(settings: Any) -> Any:
    """The settings with strings under names such as `hub_token`, and passwords in URLs, hidden."""
    if isinstance(settings, dict):
        return {
            name: "hidden"
            if SECRET_NAME.search(str(name)) and isinstance(value, str)
            else without_secrets(value)
            for name, value in settings.items()
        }
    if isinstance(settings, list | tuple):
        return [without_secrets(value) for value in settings]
    return SECRET_IN_URL.sub("hidden@", settings) if isinstance(settings, str) else settings


def strata_of(strata: pd.Series) -> dict[str, int]:
    """Samples in each stratum; `unplaced` only if the measure could not place some."""
    counted = {stratum.value: int((strata == stratum).sum()) for stratum in Stratum}
    if unplaced := int(strata.isna().sum()):
        counted["unplaced"] = unplaced
    assert sum(counted.values()) == len(strata), f"strata {counted} of {len(strata)} samples"
    return counted


def counts(loaded: Loaded, measure: str) -> dict[str, Any]:
    """Rows in, quarantined, in each stratum, picked. Fails if a row is neither placed nor told."""
    said = dict(loaded.made["data"]["counts"])
    unanswered = Counter(RejectedRow(**each).kind for each in loaded.unanswered)
    said["samples"] -= unanswered.total()
    said["quarantined"] += unanswered.total()
    strata = loaded.samples.set_index("sample_id")[f"{measure}_stratum"]
    assert said["samples"] == len(strata), f"{len(strata)} samples, but manifest.json says {said}"
    assert said["quarantined"] == len(loaded.quarantine), (
        f"{len(loaded.quarantine)} lines in quarantine.jsonl, but manifest.json says {said}"
    )
    assert said["rows"] == said["samples"] + said["quarantined"], f"a row was lost: {said}"
    counted: dict[str, Any] = {
        "samples": said["rows"],
        "quarantined": said["quarantined"],
        "quarantined_because": said.get("reasons", {}) | dict(unanswered),
        "strata": strata_of(strata),
        "picks": stages_of(loaded.picks["tuned"]),
        "picks_strata": {
            name: strata_of(strata.loc[picks["sample_id"]])
            for arm, each in loaded.picks.items()
            for name, picks in by_stage(arm, each)
        },
        "verdicts": {
            str(verdict): int(n) for verdict, n in loaded.rollouts["verdict"].value_counts().items()
        },
        "without_value": {
            each: int(loaded.samples[each].isna().sum())
            for each in loaded.measures
            if each != Measure.pism  # there None is an answer: it never fails
        },
        "cut_off": int((~loaded.rollouts["hit_eos"].astype(bool)).sum()),
    }
    if "control" in loaded.picks:
        counted["control_picks"] = stages_of(loaded.picks["control"])
    return counted


def by_stage(arm: str, picks: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """An arm's picks under its name; where it has two training stages, each by itself."""
    stages = list(dict.fromkeys(picks["stage"]))
    if len(stages) < 2:
        return [(arm, picks)]
    return [(f"{arm}, {stage}", picks.query("arm == @stage")) for stage in stages]


def stages_of(picks: pd.DataFrame) -> dict[str, int]:
    """Picks by the training stage they are given to."""
    return {str(arm): int(n) for arm, n in picks["stage"].value_counts().items()}


def other_measures(loaded: Loaded, measure: str) -> dict[str, Any]:
    """The strata of the measures that are shown beside the selecting one, where they have any."""
    return {
        each: strata_of(loaded.samples[f"{each}_stratum"])
        for each in loaded.measures
        if each != measure and bool(loaded.samples[f"{each}_stratum"].count())
    }


def drawn_truth(loaded: Loaded, measure: str) -> dict[str, Any]:
    """Mean drawn knob (0 simplest, 1 hardest) and share that needs the picture, by stratum.

    Empty where the data were not drawn by us.
    """
    known = loaded.samples.dropna(subset=["gen_difficulty"])
    return {
        str(stratum): {
            "gen_difficulty": float(group["gen_difficulty"].mean()),
            "requires_image": share_true(group["requires_image"]),
            "n": len(group),
        }
        for stratum, group in known.groupby(f"{measure}_stratum")
    }


def share_true(values: pd.Series) -> float | None:
    """The share of True among the values that are known; None if none is."""
    known = values.dropna()
    return float(known.astype(bool).mean()) if len(known) else None


def cost(loaded: Loaded, settings: dict[str, Any]) -> dict[str, Any]:
    """What the run took. generations and tokens are the probe's; by_stage has every stage's own.

    Seconds are summed over arms and marked checkpoints, and `train` is SFT and GRPO; a stage that
    was made earlier counts with the time that it took then.
    """
    made = loaded.made
    names = ("generations", "tokens", "steps")
    by_stage = {
        stage: {"seconds": made[stage]["seconds"]}
        | {name: made[stage]["counts"][name] for name in names if name in made[stage]["counts"]}
        for stage in made
    }

    def seconds(kind: str) -> float:
        taken = [made[stage]["seconds"] for stage in made if stage.split()[0] == kind]
        return round(sum(taken), 3)

    spent = {
        "generations": made["probe"]["counts"]["generations"],
        "tokens": made["probe"]["counts"]["tokens"],
        "seconds": {
            "probe": seconds("probe"),
            "score": seconds("score"),
            "train": round(seconds("sft") + seconds("train"), 3),
            "evaluate": seconds("marks"),
        },
        "by_stage": by_stage,
    }
    if "sft tuned" in made:
        spent["seconds"]["sft"] = seconds("sft")
    if "attention" in made:
        spent["seconds"]["attention"] = seconds("attention")
    if Measure.pism in loaded.measures:
        probe = settings["probe"]
        laddered = loaded.rollouts["view"].isin(["full_image", "masked"]).sum()
        spent["full_grid"] = len(loaded.samples) * len(probe["mask_percents"]) * probe["draws"]
        spent["share_of_grid"] = float(laddered / spent["full_grid"])
    return spent


def marked(summary: dict[str, Any]) -> dict[str, Any]:
    """One checkpoint's benchmarks without their mean. Scores outside [0, 1] are refused."""
    for name, each in summary.items():
        score = each["score"]
        assert score is None or 0 <= score <= 1, f"{name}: score {score} is no fraction of 1"
    return {name: dict(each) for name, each in summary.items() if name != "mean"}


def judged(made: dict[str, Any]) -> dict[str, Any]:
    """The settings of a checkpoint's marks and, where a judge was asked, its counts."""
    counts = made["counts"].get("judge", {})
    return made["settings"] | (
        {"judge_counts": counts} if counts.get("calls") or counts.get("from_cache") else {}
    )


def forward(differences: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The differences of PAIRS; one that was taken the other way round changes its signs."""
    found = {}
    for after, before in PAIRS:
        straight, turned = f"{after} - {before}", f"{before} - {after}"
        if straight in differences:
            found[straight] = differences[straight]
        elif turned in differences:
            other = differences[turned]
            signs = {"mean": -other["mean"], "low": -other["high"], "high": -other["low"]}
            found[straight] = other | signs
    return found


def overlap(inputs: RunInputs) -> dict[str, Any] | None:
    """What contamination.json says, with whether a hit was trained on; None if nobody looked."""
    if inputs.contamination is None:
        return None
    found = json.loads((inputs.contamination / "contamination.json").read_text())
    picked = {
        pick.sample_id
        for arm in inputs.arms.values()
        for folder in arm.picks
        for pick in parquet.read(folder, Selection)
    }
    hits = [each | {"trained": each["sample_id"] in picked} for each in found["hits"]]
    return found | {"hits": hits}


def dropped(made: dict[str, dict[str, Any]], arm: str) -> dict[str, int]:
    """Samples chosen for an arm's SFT that could not be taught, by the reason of either stage."""
    stages = [made[f"{stage} {arm}"]["counts"]["dropped"] for stage in ("select_sft", "sft")]
    return dict(sum(map(Counter, stages), Counter()))


def versions(loaded: Loaded) -> dict[str, str]:
    """Package versions over all stages; both are listed where two stages differ."""
    found: dict[str, dict[str, None]] = {}
    for made in loaded.made.values():
        revision = made.get("git_revision") or "unknown"
        for name, version in (made.get("versions", {}) | {"git revision": revision}).items():
            found.setdefault(name, {})[version] = None
    return {name: " and ".join(several) for name, several in found.items()}


def collect(inputs: RunInputs) -> dict[str, Any]:
    """The content of report.json. Raises MissingArtifact naming every stage not finished."""
    return gather(inputs, load(inputs))


def gather(inputs: RunInputs, loaded: Loaded) -> dict[str, Any]:
    """`collect` for artifacts that have been read already."""
    settings = without_secrets(inputs.settings)
    measure = str(settings["difficulty"]["measure"])
    data = settings["data"]
    report: dict[str, Any] = {
        "name": settings["name"],
        "train_stages": str(settings["train_stages"]),
        "seed": settings["seed"],
        "model": settings["model"]["name"],
        "data": data["path"] if data["source"] == "jsonl" else str(data["source"]),
        "measure": measure,
        "counts": counts(loaded, measure),
        "other_measures": other_measures(loaded, measure),
        "drawn_truth": drawn_truth(loaded, measure),
        "funnel": choosing.funnel(loaded, settings),
        "guessing": choosing.guessing(loaded),
        "reliability": loaded.reliability,
        "means": {who: summary["mean"] for who, summary in loaded.summaries.items()},
        "differences": forward(inputs.differences),
        "cost": cost(loaded, settings),
        "contamination": overlap(inputs),
        "recipe_difference": without_secrets(inputs.recipe_difference),
        "judged": {who: judged(loaded.made[f"marks {who}"]) for who in inputs.marks},
        "trained": {arm: loaded.made[f"train {arm}"]["counts"] for arm in inputs.arms},
        "dropped": {
            arm: dropped(loaded.made, arm) for arm, each in inputs.arms.items() if each.sft
        },
        "sft": {
            arm: loaded.made[f"sft {arm}"]["counts"]
            for arm, folders in inputs.arms.items()
            if folders.sft is not None
        },
        "training": training(
            loaded.logs, {arm: loaded.made[f"train {arm}"]["counts"] for arm in inputs.arms}
        ),
        "made": {
            stage: {"folder": folder.name, "finished_at": loaded.made[stage].get("finished_at")}
            for stage, folder in inputs.stages().items()
        },
        "versions": versions(loaded),
        "settings": settings,
    }
    report["judged"] = without_secrets(report["judged"])
    return report | {who: marked(summary) for who, summary in loaded.summaries.items()}
