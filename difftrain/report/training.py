"""What training paid, by task and stratum, and which alarms rang. From the step logs alone.

Not here: the curves of reward, dead groups and length (curves.py).
"""

# pandas' stubs make a union of every chain of attributes, so these say nothing here:
# pyright: reportArgumentType=false

from typing import Any

import pandas as pd

from difftrain.grade import reward_hacking
from difftrain.report.tables import Table
from difftrain.report.words import percent

COUNT = "completions/count/"
"""Before a task or stratum: how many of its completions a step had."""
PARTS_WAYS = "reward_rises_held_out_falls"
"""The alarm that is no sign of an answer."""


def known(log: pd.DataFrame, name: str) -> list[float]:
    """A column's values where there are any."""
    return [float(value) for value in log[name].dropna()] if name in log else []


def paid(log: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Answers, and the share of `correct`'s pay in the first and the last third, by group."""
    third = max(1, len(log) // 3)
    found = {}
    for name in log.columns:
        group = str(name).removeprefix(COUNT)
        if group == name:
            continue
        found[group] = {
            "answers": float(log[name].sum()),
            "first": mean_paid(log.head(third), group),
            "last": mean_paid(log.tail(third), group),
        }
    return dict(sorted(found.items()))


def mean_paid(log: pd.DataFrame, group: str) -> float | None:
    """Mean pay of a group's answers over these steps; None if it had none in them."""
    answers = log[f"{COUNT}{group}"]
    total = float(answers.sum())
    sums = (log[f"rewards/accuracy/mean/{group}"] * answers).sum()
    return float(sums) / total if total else None


def rung(log: pd.DataFrame, held_out: int) -> dict[str, dict[str, Any]]:
    """Each alarm with its loudest share, its limit and the step at which it first rang (None)."""
    found: dict[str, dict[str, Any]] = {}
    for alarm, limit in reward_hacking.ALARM_LIMITS.items():
        shares = known(log, f"alarms/{alarm}")
        at = reward_hacking.first_alarm(shares, limit)
        found[alarm.value] = {
            "loudest": reward_hacking.max_mean_share(shares) if shares else None,
            "limit": limit,
            "step": None if at is None else int(log["step"].iloc[at]),
        }
    looks = known(log, "eval_rewards/accuracy/mean")
    found[PARTS_WAYS] = {
        "rang": reward_hacking.reward_diverges(known(log, "reward"), looks, held_out),
        "first": looks[0] if looks else None,
        "last": looks[-1] if looks else None,
    }
    return found


def training(
    logs: dict[str, pd.DataFrame], trained: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """By arm: pay by task and stratum, and the alarms. `trained` has each arm's counts."""
    return {
        arm: {
            "paid": paid(log) if len(log) else {},
            "alarms": rung(log, int(trained[arm].get("eval_samples", 0))) if len(log) else {},
        }
        for arm, log in logs.items()
    }


def told(report: dict[str, Any]) -> list[str]:
    """One line for each alarm that rang."""
    lines = []
    for arm, each in report["training"].items():
        for name, alarm in each["alarms"].items():
            if name == PARTS_WAYS and alarm["rang"]:
                was, now = percent(alarm["first"]), percent(alarm["last"])
                lines.append(
                    f"Alarm while training {arm}: the reward rose while held-out samples got "
                    f"worse ({was} % to {now} %)."
                )
            elif alarm.get("step") is not None:
                lines.append(
                    f"Alarm while training {arm}, from step {alarm['step']}: "
                    f"{percent(alarm['loudest'])} % of the answers, "
                    f"{reward_hacking.ALARM_MEANINGS[reward_hacking.Alarm(name)]}."
                )
    return lines


def alarm_table(report: dict[str, Any]) -> Table:
    """Every alarm, its loudest share in each arm, its limit and when it rang."""
    arms = {arm: each["alarms"] for arm, each in report["training"].items() if each["alarms"]}
    rows = []
    for alarm, limit in reward_hacking.ALARM_LIMITS.items():
        cells = [loudness(own[alarm.value]) for own in arms.values()]
        rows.append([reward_hacking.ALARM_MEANINGS[alarm], *cells, f"{percent(limit)} %"])
    looks = [looked(own[PARTS_WAYS]) for own in arms.values()]
    rows.append(["reward rises while held-out samples get worse", *looks, "2 standard errors"])
    return Table(
        [f"share of answers, mean of {reward_hacking.ALARM_WINDOW} steps", *arms, "limit"], rows
    )


def loudness(alarm: dict[str, Any]) -> str:
    """A sign's loudest share, and the step from which it was above its limit."""
    if alarm["loudest"] is None:
        return "not counted"
    since = "" if alarm["step"] is None else f", rang at step {alarm['step']}"
    return f"{percent(alarm['loudest'])} %{since}"


def looked(alarm: dict[str, Any]) -> str:
    """First and last share of held-out samples answered right."""
    if alarm["rang"] is None:
        return "not watched"
    rang = ", rang" if alarm["rang"] else ""
    return f"{percent(alarm['first'])} % to {percent(alarm['last'])} %{rang}"


def paid_table(report: dict[str, Any]) -> Table:
    """Pay for being right by task and stratum: first third of the steps, then the last."""
    arms = {arm: each["paid"] for arm, each in report["training"].items()}
    groups = sorted({group for own in arms.values() for group in own})
    head = [f"{arm}: {part}" for arm in arms for part in ("answers", "first third", "last third")]
    rows = []
    for group in groups:
        cells = []
        for own in arms.values():
            each = own.get(group, {"answers": 0, "first": None, "last": None})
            cells += [f"{each['answers']:,.0f}", percent(each["first"]), percent(each["last"])]
        rows.append([group.replace("/", ": "), *cells])
    return Table(["percent paid for being right", *head], rows)
