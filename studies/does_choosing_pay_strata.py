"""Which of PISM's strata the live groups of a whole pool come from, early and late in training.

    python studies/does_choosing_pay_strata.py [output_dir=FOLDER]

The arm `refill` of online_difficulty.py asks every sample of a pool in turn, pass after pass, and
logs each group. This reads the logs of its trainings that are still below output_dir (result rows
do not hold them), and writes results/does_choosing_pay_strata.json for the page of
does_choosing_pay.py.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import does_choosing_pay_reasons as reasons
import online_difficulty
from does_choosing_pay_rows import STRATA

from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes import difficulty
from difftrain.records import Arm, Measure, Score
from difftrain.shapes.pool import built_as
from difftrain.train.callbacks import PROMPT_LOG, read_log

ARM = "refill"


def live_by_pass(
    rows: Sequence[Mapping[str, Any]], stratum_of: Mapping[str, str]
) -> Iterator[tuple[str, int, bool]]:
    """(stratum, pass over the pool, whether rewards differed) of each group in a prompt log."""
    asked: Counter[str] = Counter()
    for row in rows:
        if row["step"] > 0:  # others hold the probe's answers
            asked[row["sample_id"]] += 1
            yield stratum_of[row["sample_id"]], asked[row["sample_id"]], not row["zero_variance"]


def shares(groups: Sequence[tuple[str, int, bool]], last: int) -> dict[str, dict[str, float]]:
    """By stratum: its share of the first pass's groups and live groups, and how many are live in
    the first pass and in pass `last`."""
    table = {}
    num_live = sum(live for _, number, live in groups if number == 1)
    num_first = sum(number == 1 for _, number, _ in groups)
    for name in STRATA:
        first = [live for stratum, number, live in groups if (stratum, number) == (name, 1)]
        late = [live for stratum, number, live in groups if (stratum, number) == (name, last)]
        if first and late:
            table[name] = {
                "share": len(first) / num_first,
                "live_first": sum(first) / len(first),
                "live_last": sum(late) / len(late),
                "share_of_live": sum(first) / num_live,
            }
    return table


def main() -> None:
    """Count the groups of all trainings that are found, and write the file."""
    overrides = sys.argv[1:] or ["output_dir=outputs/online_difficulty"]
    logs, seeds = [], []
    built: Counter[tuple[str, str]] = Counter()  # (stratum, what a sample was built to be)
    for seed in online_difficulty.SEEDS:
        config = online_difficulty.arm_config(ARM, seed, overrides)
        paths = RunPaths(config, trained=True)
        folder = paths.grpo(Arm.tuned)
        if (folder / manifest.MANIFEST).is_file():
            scores = parquet.read_rows(paths.score, Score)
            stratum_of = {
                row.sample_id: str(row.stratum) for row in scores if row.measure is Measure.pism
            }
            logs.append(list(live_by_pass(read_log(folder, PROMPT_LOG), stratum_of)))
            seeds.append(seed)
            samples = difficulty.load_samples(config, paths, World())
            built.update((stratum_of[row.sample_id], built_as(row)) for row in samples)
    if not logs:
        sys.exit(f"no finished training of the arm {ARM} with {' '.join(overrides)}")
    last = min(max(number for _, number, _ in log) for log in logs) - 1  # the last whole pass
    groups = [group for log in logs for group in log]
    table = shares(groups, last)
    for name, row in table.items():
        row |= {kind: built[name, kind] / len(seeds) for kind in ("easy", "sometimes", "never")}
    content = {"arm": ARM, "seeds": seeds, "last_pass": last, "strata": table}
    manifest.write_json(reasons.STRATA_FILE, content)
    print(reasons.STRATA_FILE)


if __name__ == "__main__":
    main()
