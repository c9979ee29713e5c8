"""docs/papers.md: its settings are what runs have, and its tables are the published ones."""

import csv
import re
from operator import attrgetter
from pathlib import Path

import pytest
import yaml

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import resolve
from difftrain.report.compare.presets import PAPER_ROWS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "papers.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n(]+?)(?: \([^\n]*)?\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
RUN = {  # the run of each section; the other groups keep their defaults
    "PISM": ["difficulty=pism", "data=orsta_reasoning"],
    "CMAB": ["difficulty=cmab", "data=orsta_reasoning"],
    "CDE, ACE, DRM": ["recipe=rap", "data=mm_eureka"],
    "Training": ["data=orsta_reasoning"],
}


def documented_settings(section: str) -> list[tuple[str, str]]:
    """The settings in the third column (`setting`) of a section's tables."""
    rows = [line.split("|") for line in SECTIONS[section].splitlines() if line.startswith("| ")]
    return [pair for row in rows for pair in re.findall(r"`([a-z_]+\.[a-z_.]+)=([^`]+)`", row[3])]


@pytest.mark.parametrize("section", RUN)
def test_a_number_of_the_papers_is_the_value_that_a_run_has(section: str) -> None:
    config = resolve(compose_config(["model=qwen2_5_vl_7b", *RUN[section]]))
    settings = documented_settings(section)
    assert len(settings) >= 6
    for key, value in settings:
        assert attrgetter(key)(config) == yaml.safe_load(value), key


def test_the_published_scores_are_the_table_that_comparisons_use() -> None:
    file = ROOT / "difftrain" / "report" / "compare" / "paper_tables.csv"
    recipes = {row.title: row.recipe for row in PAPER_ROWS}
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 48
    for row in rows:
        heading = f"### {row['measure'].upper()}, {row['task_set']}:"
        table = PAGE.partition(heading)[2].partition("\n#")[0]
        scores = list(row.values())[3:]
        cells = [row["row"], f"`{recipes[row['row']]}`", *scores]
        assert f"| {' | '.join(cells)} |" in table, heading
