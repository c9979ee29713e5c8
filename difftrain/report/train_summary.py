"""What training rewarded, by task and stratum, and which alarms it raised, from the step logs.

Not here: the curves of reward, zero-variance groups and length (plots.py).
"""

# pandas' stubs make a union of every chain of attributes, so these say nothing here:
# pyright: reportArgumentType=false

from typing import Any

import pandas as pd

from difftrain.grade import reward_hacking
from difftrain.grade.reward_hacking import ALARM_LIMITS, ALARM_MEANINGS, ALARM_WINDOW
from difftrain.report.tables import Table
from difftrain.report.text import percent

DIVERGENCE = "reward_rises_held_out_falls"
"""The alarm that compares training reward and held-out accuracy; the others look at responses."""
COUNT = "completions/count/"
"""Prefix of the columns that count a task's or stratum's responses in a step."""
ACCURACY = "rewards/accuracy/mean"


def summarize_training(
    logs: dict[str, pd.DataFrame], trained: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """By arm: accuracy rewards by task and stratum, and the alarms.

    `trained` has the counts of each arm's training.
    """
    return {
        arm: {
            "rewards": rewards_by_subset(log) if len(log) else {},
            "alarms": alarms(log, int(trained[arm].get("eval_samples", 0))) if len(log) else {},
        }
        for arm, log in logs.items()
    }


def rewards_by_subset(log: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Responses and mean accuracy reward in the first and last third, by task and stratum."""
    third = max(1, len(log) // 3)
    subsets = sorted(
        str(name).removeprefix(COUNT) for name in log.columns if str(name).startswith(COUNT)
    )
    return {
        subset: {
            "responses": float(log[COUNT + subset].sum()),
            "first": mean_reward(log.head(third), subset),
            "last": mean_reward(log.tail(third), subset),
        }
        for subset in subsets
    }


def mean_reward(log: pd.DataFrame, subset: str) -> float | None:
    """Mean accuracy reward of a subset's responses over these steps; None without responses."""
    counts = log[COUNT + subset]
    total = float(counts.sum())
    sums = (log[f"{ACCURACY}/{subset}"] * counts).sum()
    return float(sums) / total if total else None


def present_values(log: pd.DataFrame, name: str) -> list[float]:
    """A column's values that are not missing; empty without the column."""
    return [float(value) for value in log[name].dropna()] if name in log else []


def alarms(log: pd.DataFrame, eval_samples: int) -> dict[str, dict[str, Any]]:
    """Each alarm with its largest share, its limit and the step it was first raised at (None)."""
    results: dict[str, dict[str, Any]] = {}
    for alarm, limit in ALARM_LIMITS.items():
        shares = present_values(log, f"alarms/{alarm}")
        index = reward_hacking.first_alarm(shares, limit)
        results[alarm.value] = {
            "max_share": reward_hacking.max_mean_share(shares) if shares else None,
            "limit": limit,
            "step": None if index is None else int(log["step"].iloc[index]),
        }
    held_out = present_values(log, f"eval_{ACCURACY}")
    rewards = present_values(log, "reward")
    results[DIVERGENCE] = {
        "raised": reward_hacking.reward_diverges(rewards, held_out, eval_samples),
        "first": held_out[0] if held_out else None,
        "last": held_out[-1] if held_out else None,
    }
    return results


def alarm_sentences(report: dict[str, Any]) -> list[str]:
    """One sentence for each alarm that was raised."""
    sentences = []
    for arm, training in report["training"].items():
        for name, alarm in training["alarms"].items():
            if name == DIVERGENCE and alarm["raised"]:
                sentences.append(
                    f"Alarm while training {arm}: the reward rose while the accuracy on held-out "
                    f"samples fell ({percent(alarm['first'])} % to {percent(alarm['last'])} %)."
                )
            elif alarm.get("step") is not None:
                sentences.append(
                    f"Alarm while training {arm}, from step {alarm['step']}: "
                    f"{percent(alarm['max_share'])} % of the responses, "
                    f"{ALARM_MEANINGS[reward_hacking.Alarm(name)]}."
                )
    return sentences


def alarm_table(report: dict[str, Any]) -> Table:
    """Every alarm: its largest share in each arm, its limit and when it was raised."""
    arms = {arm: each["alarms"] for arm, each in report["training"].items() if each["alarms"]}
    rows = [
        [
            ALARM_MEANINGS[alarm],
            *(format_share(results[alarm.value]) for results in arms.values()),
            f"{percent(limit)} %",
        ]
        for alarm, limit in ALARM_LIMITS.items()
    ]
    divergence = [format_divergence(results[DIVERGENCE]) for results in arms.values()]
    rows.append(["reward rises, held-out accuracy falls", *divergence, "2 standard errors"])
    return Table([f"share of responses, mean of {ALARM_WINDOW} steps", *arms, "limit"], rows)


def format_share(alarm: dict[str, Any]) -> str:
    """An alarm's largest share, and the step from which it was above its limit."""
    if alarm["max_share"] is None:
        return "not counted"
    since = "" if alarm["step"] is None else f", alarm from step {alarm['step']}"
    return f"{percent(alarm['max_share'])} %{since}"


def format_divergence(alarm: dict[str, Any]) -> str:
    """First and last accuracy on held-out samples."""
    if alarm["raised"] is None:
        return "not measured"
    suffix = ", alarm" if alarm["raised"] else ""
    return f"{percent(alarm['first'])} % to {percent(alarm['last'])} %{suffix}"


def rewards_table(report: dict[str, Any]) -> Table:
    """Accuracy rewards by task and stratum: first third of the steps, then the last."""
    arms = {arm: each["rewards"] for arm, each in report["training"].items()}
    subsets = sorted({subset for rewards in arms.values() for subset in rewards})
    head = [f"{arm}: {part}" for arm in arms for part in ("responses", "first third", "last third")]
    rows = []
    for subset in subsets:
        cells = []
        for rewards in arms.values():
            row = rewards.get(subset, {"responses": 0, "first": None, "last": None})
            cells += [f"{row['responses']:,.0f}", percent(row["first"]), percent(row["last"])]
        rows.append([subset.replace("/", ": "), *cells])
    return Table(["accuracy reward, percent", *head], rows)
