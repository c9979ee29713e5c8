"""How samples move between strata from round to round: counts, figure, joined training logs."""

import json
from base64 import b64decode
from pathlib import Path

import pandas as pd

from difftrain.report.flow import labels_by_round, moves, strata_flow
from difftrain.report.inputs import joined_steps
from difftrain.report.text import table


def scores(strata: dict[str, str | None]) -> pd.DataFrame:
    return pd.DataFrame({"sample_id": list(strata), "stratum": list(strata.values())})


ROUNDS = [
    scores({"a": "hard", "b": "hard", "c": "easy", "d": None}),
    scores({"c": "easy", "a": "medium", "b": "hard", "d": "unsolved"}),
    scores({"a": "easy", "b": "easy", "c": "easy", "d": "unsolved"}),
]


def test_every_move_is_counted_once_and_samples_are_matched_by_their_id() -> None:
    first, second = moves(labels_by_round(ROUNDS))
    assert first["counts"] == {
        "easy": {"easy": 1},
        "hard": {"hard": 1, "medium": 1},
        "unplaced": {"unsolved": 1},
    }
    assert (first["from"], first["to"], first["moved"], first["samples"]) == (1, 2, 2, 4)
    assert second["moved"] == 2
    for pair in (first, second):
        assert sum(sum(row.values()) for row in pair["counts"].values()) == pair["samples"]


def test_a_sample_that_a_round_could_not_score_is_in_no_move() -> None:
    without_c = ROUNDS[1][ROUNDS[1]["sample_id"] != "c"]
    (pair,) = moves(labels_by_round([ROUNDS[0], without_c]))
    assert pair["samples"] == 3
    assert "easy" not in pair["counts"]


def test_the_figure_names_rounds_and_counts_and_is_absent_with_one_round() -> None:
    url = strata_flow(ROUNDS)
    assert url is not None
    svg = b64decode(url.partition("base64,")[2]).decode()
    assert svg.startswith("<?xml")
    assert strata_flow(ROUNDS) == url
    assert strata_flow(ROUNDS[:1]) is None


def test_the_tables_show_strata_picks_and_moves() -> None:
    rounds = {
        "moves": moves(labels_by_round(ROUNDS[:2])),
        "by_round": [
            {"round": 1, "strata": {"easy": 1, "hard": 2, "unplaced": 1}, "picks": {"tuned": 2},
             "steps": {"tuned": 5}, "generations": 40, "seconds": 3.0},
            {"round": 2, "strata": {"easy": 1, "medium": 1, "hard": 1, "unsolved": 1},
             "picks": {}, "steps": {}, "generations": 30, "seconds": 2.0},
        ],
    }  # fmt: skip
    head, first, second = table("rounds", rounds)
    assert head[:4] == ["round", "easy", "hard", "unplaced"]
    assert first == ["1", "1", "2", "1", "0", "0", "2", "5", "40", "3.0 s"]
    assert second[-4:] == ["none", "none", "30", "2.0 s"]
    head, *rows = table("moves", rounds)
    assert [row[0] for row in rows] == ["1 to 2, easy", "1 to 2, hard", "1 to 2, unplaced"]
    assert len({len(row) for row in (head, *rows)}) == 1


def test_the_steps_and_seconds_of_a_later_round_are_counted_on(tmp_path: Path) -> None:
    for name, values in (("first", (1.0, 3.0)), ("second", (0.5,))):
        rows = [{"step": i, "seconds": s, "reward": s} for i, s in enumerate(values, 1)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name).mkdir()
        (tmp_path / name / "train_log.jsonl").write_text(text)
    rows = joined_steps([tmp_path / "first", tmp_path / "second"])
    assert [(row["step"], row["seconds"]) for row in rows] == [(1, 1.0), (2, 3.0), (3, 3.5)]
    assert [row["reward"] for row in rows] == [1.0, 3.0, 0.5]
    assert [row["training_round"] for row in rows] == [1, 1, 2]
    assert "training_round" not in joined_steps([tmp_path / "first"])[0]
