"""The paper's twelve rows: two of them differ only in what their names say."""

import itertools
import re
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from difftrain.cli import overrides
from difftrain.config.run_config import resolve
from difftrain.report.compare.presets import PRESETS

CONF = Path(__file__).resolve().parents[2] / "conf" / "recipe"
STRATA = {"mid": "medium", "m": "medium", "hard": "hard", "h": "hard"}
ALONE = {
    "grpo_full": (["easy", "medium", "hard", "unsolved"], False),
    "grpo_unsolved": (["unsolved"], False),
    "grpo_random": (["medium", "hard"], True),
    "grpo_mid_hard": (["medium", "hard"], False),
    "grpo_hard": (["hard"], False),
    "grpo_mid": (["medium"], False),
}
PAIRS = [
    f"sft_{first}_grpo_{second}"
    for one, two in (("mid", "hard"), ("hard", "mid"))
    for first in (one, f"rand_{one[0]}")
    for second in (two, f"rand_{two[0]}")
]
ROWS = [*ALONE, *PAIRS]
NAMED = ("name", "recipe", "train_stages", "select.strata", "select.random", "select.sft_strata",
         "select.sft_random")  # fmt: skip


def row(name: str) -> DictConfig:
    return overrides.compose_config([f"recipe={name}"])


def settings_by_name(name: str) -> dict[str, object]:
    """What a row's name says, in settings."""
    if name in ALONE:
        keep, random = ALONE[name]
        settings = {"train_stages": "grpo", "select.sft_strata": [], "select.sft_random": False}
        return settings | {"select.strata": keep, "select.random": random}
    first, second = re.fullmatch(r"sft_(\w+)_grpo_(\w+)", name).groups()
    settings: dict[str, object] = {"train_stages": "sft_then_grpo"}
    for part, prefix in ((first, "select.sft_"), (second, "select.")):
        settings[f"{prefix}strata"] = [STRATA[part.removeprefix("rand_")]]
        settings[f"{prefix}random"] = part.startswith("rand_")
    return settings


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_set_to_what_its_name_says(name: str) -> None:
    composed = row(name)
    assert composed.name == name
    assert {
        key: OmegaConf.select(composed, key) for key in settings_by_name(name)
    } == settings_by_name(name)


@pytest.mark.parametrize("name", PRESETS)
def test_a_comparison_knows_each_row_by_what_its_file_sets(name: str) -> None:
    composed, preset = row(name), PRESETS[name].settings
    assert {key: OmegaConf.select(composed, key) for key in preset} == preset
    assert len(preset) == 6


def test_two_rows_differ_only_in_what_their_names_say() -> None:
    composed = {name: row(name) for name in ROWS}
    for a, b in itertools.combinations(ROWS, 2):
        differing = {
            key
            for key in settings_by_name(a)
            if settings_by_name(a)[key] != settings_by_name(b)[key]
        }
        assert differing, (a, b)
        other = composed[b].copy()
        for key in ("name", "recipe", *differing):
            OmegaConf.update(other, key, OmegaConf.select(composed[a], key), merge=False)
        assert other == composed[a], (a, b)


@pytest.mark.parametrize("name", ROWS)
def test_the_difference_of_a_row_is_what_its_file_sets_and_makes_it_that_row(name: str) -> None:
    composed = row(name)
    difference = overrides.recipe_settings(resolve(composed))
    assert {line.split("=")[0] for line in difference} <= set(NAMED)
    plain = overrides.compose_config([])
    for line in difference:
        key = line.split("=")[0]
        OmegaConf.update(plain, key, OmegaConf.select(composed, key), merge=False)
    plain.recipe = name
    assert plain == composed


@pytest.mark.parametrize("name", [name for name in ROWS if name not in ("grpo_hard", "grpo_mid")])
def test_each_of_the_twelve_quotes_its_row_of_all_four_tables(name: str) -> None:
    text = (CONF / f"{name}.yaml").read_text()
    quoted = re.findall(r"^# (pism|cmab), (reasoning|perception) +((?:[\d.]+, ){5}[\d.]+)$", text,
                        re.MULTILINE)  # fmt: skip
    assert len({(measure, tasks) for measure, tasks, _ in quoted}) == 4


def test_an_sft_row_needs_its_strata_and_another_row_has_none() -> None:
    with pytest.raises(
        overrides.ConfigError, match=r"select.sft_strata=\[\]: must name at least one"
    ):
        overrides.compose_config(["recipe=sft_mid_grpo_hard", "select.sft_strata=[]"])
    with pytest.raises(overrides.ConfigError, match="train_stages=grpo has no SFT"):
        overrides.compose_config(["recipe=grpo_hard", "select.sft_strata=[hard]"])
    with pytest.raises(
        overrides.ConfigError, match=r"needs select\.sft_strata, which set the number"
    ):
        overrides.compose_config(["recipe=grpo_hard", "select.sft_random=true"])
