"""Recipes differ only in the settings that their names say.

A recipe is a file under conf/recipe with the settings of one kind of run. Its name says which
strata of the samples (easy, medium, hard, unsolved) go to SFT and to GRPO: `mid` or `m` is medium,
`hard` or `h` is hard, `rand` means as many random samples as the stratum has. Twelve of these
recipes are rows in the tables of Qi et al. 2026; grpo_hard and grpo_mid are not.
"""

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
GRPO_ONLY = {  # by recipe the values of select.strata and select.random
    "grpo_full": (["easy", "medium", "hard", "unsolved"], False),
    "grpo_unsolved": (["unsolved"], False),
    "grpo_random": (["medium", "hard"], True),
    "grpo_mid_hard": (["medium", "hard"], False),
    "grpo_hard": (["hard"], False),
    "grpo_mid": (["medium"], False),
}
SFT_THEN_GRPO = [  # such as sft_mid_grpo_hard and sft_rand_m_grpo_rand_h
    f"sft_{sft}_grpo_{grpo}"
    for sft_stratum, grpo_stratum in (("mid", "hard"), ("hard", "mid"))
    for sft in (sft_stratum, f"rand_{sft_stratum[0]}")
    for grpo in (grpo_stratum, f"rand_{grpo_stratum[0]}")
]
RECIPES = [*GRPO_ONLY, *SFT_THEN_GRPO]
# The keys that the file of one of these recipes may set.
RECIPE_KEYS = ("name", "recipe", "train_stages", "select.strata", "select.random",
            "select.sft_strata", "select.sft_random")  # fmt: skip


def compose_recipe(name: str) -> DictConfig:
    return overrides.compose_config([f"recipe={name}"])


def settings_by_name(name: str) -> dict[str, object]:
    """The settings that a recipe's name says."""
    if name in GRPO_ONLY:
        strata, is_random = GRPO_ONLY[name]
        settings = {"train_stages": "grpo", "select.sft_strata": [], "select.sft_random": False}
        return settings | {"select.strata": strata, "select.random": is_random}
    sft, grpo = re.fullmatch(r"sft_(\w+)_grpo_(\w+)", name).groups()
    settings: dict[str, object] = {"train_stages": "sft_then_grpo"}
    for part, prefix in ((sft, "select.sft_"), (grpo, "select.")):
        settings[f"{prefix}strata"] = [STRATA[part.removeprefix("rand_")]]
        settings[f"{prefix}random"] = part.startswith("rand_")
    return settings


@pytest.mark.parametrize(
    ("name", "side", "boxes"),
    [("tiny", 28, "pixels"), ("qwen3_vl_8b", 32, "relative"), ("qwen3_5_9b", 32, "relative"),
     ("glm4_1v_9b", 28, "relative"), ("internvl3_5_8b", 28, "relative"),
     ("gemma3_12b", 28, "pixels"), ("smolvlm2_2b", 28, "pixels")],
)  # fmt: skip
def test_a_models_group_sets_what_its_family_needs(name: str, side: int, boxes: str) -> None:
    config = resolve(overrides.compose_config([f"model={name}"]))
    assert (config.data.token_side, config.grade.box_coordinates) == (side, boxes)
    assert config.data.max_pixels % side**2 == 0


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_settings_that_its_name_says(name: str) -> None:
    composed = compose_recipe(name)
    assert composed.name == name
    expected = settings_by_name(name)
    assert {key: OmegaConf.select(composed, key) for key in expected} == expected


def test_grpo_dynamic_is_grpo_mid_hard_with_dynamic_sampling() -> None:
    composed, mid_hard = compose_recipe("grpo_dynamic"), compose_recipe("grpo_mid_hard")
    assert composed.grpo.dynamic_sampling is True
    for key in ("name", "recipe", "grpo.dynamic_sampling"):
        OmegaConf.update(mid_hard, key, OmegaConf.select(composed, key))
    assert composed == mid_hard


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_of_the_comparison_match_the_recipe_files(name: str) -> None:
    """A preset has the settings that a row of a comparison table must have."""
    composed, preset = compose_recipe(name), PRESETS[name].settings
    assert {key: OmegaConf.select(composed, key) for key in preset} == preset
    # train_stages and five settings of select; a row without a preset would have none.
    assert len(preset) == 6


def test_two_recipes_differ_only_in_the_settings_that_their_names_say() -> None:
    composed = {name: compose_recipe(name) for name in RECIPES}
    for a, b in itertools.combinations(RECIPES, 2):
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


@pytest.mark.parametrize("name", RECIPES)
def test_the_default_run_with_the_recipe_settings_is_that_recipe(name: str) -> None:
    composed = compose_recipe(name)
    recipe_settings = overrides.recipe_settings(resolve(composed))
    assert {text.split("=")[0] for text in recipe_settings} <= set(RECIPE_KEYS)
    default = overrides.compose_config([])
    for text in recipe_settings:
        key = text.split("=")[0]
        OmegaConf.update(default, key, OmegaConf.select(composed, key), merge=False)
    default.recipe = name
    assert default == composed


@pytest.mark.parametrize(
    "name", [name for name in RECIPES if name not in ("grpo_hard", "grpo_mid")]
)
def test_a_recipe_file_quotes_its_row_from_all_four_tables_of_qi_et_al(name: str) -> None:
    """The tables are for two difficulty measures (PISM and CMAB) and two sets of tasks.

    A row has the scores of six benchmarks.
    """
    text = (CONF / f"{name}.yaml").read_text()
    quoted = re.findall(r"^# (pism|cmab), (reasoning|perception) +((?:[\d.]+, ){5}[\d.]+)$", text,
                        re.MULTILINE)  # fmt: skip
    assert len({(measure, tasks) for measure, tasks, _ in quoted}) == 4


def test_sft_strata_are_required_with_sft_and_refused_without() -> None:
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
