"""Bad settings end in exit code 2 with every problem named, before torch is imported."""

import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from difftrain.cli import config_of, overrides
from difftrain.config.model import Dtype
from difftrain.config.run_config import ConfigError, RunConfig, resolve

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml"))


def problems_of(*arguments: str) -> list[str]:
    """The problems that a command line has."""
    with pytest.raises(ConfigError) as caught:
        overrides.compose_config(list(arguments))
    return caught.value.problems


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "train.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_misspelt_key_is_refused_with_the_nearest_right_one() -> None:
    (problem,) = problems_of("difficulty.pism.tua=0.2")
    assert "there is no setting difficulty.pism.tua" in problem
    assert "did you mean difficulty.pism.tau?" in problem


def test_a_misspelt_key_is_refused_with_a_plus_too() -> None:
    (problem,) = problems_of("+difficulty.pism.tua=0.2")
    assert "did you mean difficulty.pism.tau?" in problem


def test_a_misspelt_group_and_a_misspelt_recipe_are_refused() -> None:
    group, recipe = problems_of("recpe=grpo_hard", "recipe=grpo_hrd")
    assert "did you mean recipe?" in group
    assert "did you mean grpo_hard?" in recipe


def test_a_group_of_null_is_refused_together_with_every_other_problem() -> None:
    model, recipe, seed = problems_of("model=null", "~recipe", "seed=abc")
    assert model.startswith("model=null: model needs one of any, ")
    assert "~recipe: recipe needs one of " in recipe
    assert "seed=abc" in seed
    done = run("model=null")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    overrides.compose_config(["debug=null"])


def test_a_misspelt_debug_is_refused_instead_of_running_the_full_job() -> None:
    assert "did you mean smoke?" in problems_of("debug=smok")[0]


def test_all_problems_come_at_once_with_key_value_and_rule() -> None:
    problems = problems_of(
        "difficulty.pism.tau=1.5",
        "grpo.num_generations=1",
        "seed=abc",
        "evaluate.benchmarks=[MMVit]",
    )
    text = "\n".join(problems)
    assert "difficulty.pism.tau=1.5: must lie strictly between 0 and 1" in text
    assert "grpo.num_generations=1: GRPO needs at least two completions to compare" in text
    assert "seed=abc" in text
    assert "'MMVit'" in text


def test_a_step_that_the_processes_cannot_share_names_what_they_can() -> None:
    done = run("grpo.prompts_per_step=3", "grpo.num_generations=3", RANK="0", WORLD_SIZE="4")
    assert done.returncode == 2
    assert "grpo.prompts_per_step=3: times num_generations=3 must divide by the 4" in done.stderr
    assert "nearest: [4, 8, 12]" in done.stderr


def test_what_does_not_train_takes_any_number_of_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    uneven = ["grpo.prompts_per_step=4", "grpo.num_generations=4"]
    assert config_of("score", uneven).grpo.step_problem(3)
    with pytest.raises(ConfigError, match="must divide by the 3 processes"):
        config_of("train", uneven, trains=True)


def test_a_missing_file_is_named() -> None:
    (problem,) = problems_of("data=jsonl", "data.path=nowhere/my.jsonl")
    assert problem == "data.path=nowhere/my.jsonl: there is no such file"


def test_a_misspelt_model_and_a_missing_model_folder_are_refused() -> None:
    assert "did you mean tiny?" in problems_of("model.name=tny")[0]
    assert problems_of("model.name=./nowhere") == ["model.name=./nowhere: there is no such folder"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (problem,) = problems_of(f"output_dir={tmp_path}/file/artifacts")
    assert "is not a folder" in problem


def test_two_values_for_one_run_are_refused() -> None:
    (problem,) = problems_of("seed=1,2")
    assert problem == "seed=1,2: one run has one value; run other seeds with seed=N"


def test_a_model_that_is_only_named_does_not_get_the_tiny_models_settings() -> None:
    alone = overrides.compose_config(["model.name=org/big"])
    assert alone == overrides.compose_config(["model=any", "model.name=org/big"])
    assert (alone.model.dtype, alone.grpo.learning_rate) == (Dtype.bfloat16, 1e-6)
    assert (alone.probe.max_new_tokens, alone.evaluate.max_new_tokens) == (1024, 2048)
    assert (
        overrides.compose_config(["model=tiny", "model.name=org/small"]).grpo.max_completion_length
        == 72
    )
    assert overrides.compose_config(["model.name=tiny"]) == overrides.compose_config([])


def test_trls_own_keys_may_be_added_below_grpo_trl() -> None:
    assert overrides.compose_config(["+grpo.trl.optim=sgd"]).grpo.trl == {"optim": "sgd"}


def test_a_misspelt_key_of_trls_is_refused_early_with_the_nearest_one() -> None:
    problems = problems_of("+grpo.trl.optin=sgd", "+grpo.trl.beta=0.1", "+grpo.trl.xyz=1")
    assert problems[0].startswith(
        f"grpo.trl.optin=sgd: TRL {version('trl')}'s GRPOConfig has no such key"
    )
    assert "did you mean grpo.trl.optim?" in problems[0]
    assert problems[1].startswith("grpo.trl.beta=0.1: managed by difftrain; set grpo.beta instead")
    assert problems[2] == f"grpo.trl.xyz=1: TRL {version('trl')}'s GRPOConfig has no such key"
    started = time.monotonic()
    done = run("+grpo.trl.optin=sgd")
    assert done.returncode == 2
    assert "did you mean grpo.trl.optim?" in done.stderr
    assert time.monotonic() - started < 20  # 3 s on an idle machine


def test_secrets_remote_code_and_publishing_are_refused_below_grpo_trl() -> None:
    never = ("push_to_hub=true", "hub_model_id=a/b", "hub_strategy=end", "hub_private_repo=true")
    code = ("hub_token=hf_abc", "trust_remote_code=true")
    problems = problems_of(*(f"+grpo.trl.{key}" for key in (*code, *never)))
    assert "grpo.trl.hub_token" in problems[0]
    assert problems[0].endswith(": is a secret: use HF_TOKEN")
    assert problems[1].endswith(": is always off")
    assert len(problems) == 6
    assert all(text.endswith("does not publish what it makes") for text in problems[2:])
    done = run("+grpo.trl.hub_token=hf_abc")
    assert done.returncode == 2
    assert "use HF_TOKEN" in done.stderr
    assert "hf_abc" not in done.stderr + done.stdout


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_resolves_and_is_named_after_its_file(name: str) -> None:
    composed = overrides.compose_config([f"recipe={name}"])
    assert composed.recipe == composed.name == name


def test_two_recipes_differ_only_in_what_their_files_say() -> None:
    plain = overrides.compose_config(["recipe=grpo_hard"])
    other = overrides.compose_config(["recipe=grpo_mid_hard"])
    plain.recipe = other.recipe
    plain.name = other.name
    assert plain != other
    plain.select.strata = other.select.strata
    assert plain == other


def test_the_rap_recipes_differ_only_in_the_measures_that_they_name() -> None:
    whole = overrides.compose_config(["recipe=rap"])
    assert whole.select.rap == ["cde", "ace", "drm"]
    for name, measures in (
        ("rap_cde", ["cde"]),
        ("rap_ace", ["ace"]),
        ("rap_cde_ace", ["cde", "ace"]),
    ):
        other = overrides.compose_config([f"recipe={name}"])
        assert other.select.rap == measures
        assert other != whole
        other.select.rap, other.name, other.recipe = whole.select.rap, whole.name, whole.recipe
        assert other == whole


def test_rap_differs_from_a_stratum_recipe_in_what_its_difference_says() -> None:
    plain, rap = (
        overrides.compose_config(["recipe=grpo_hard"]),
        overrides.compose_config(["recipe=rap"]),
    )
    difference = overrides.recipe_difference(resolve(rap))
    assert difference == [
        "difficulty.measure=drm", "difficulty.extra_measures=[cde, ace]",
        "probe.retest_samples=100",
        "probe.temperature=1.0", "name=rap", "select.strata=[]", "select.rap=[cde, ace, drm]",
    ]  # fmt: skip
    for line in difference:
        key = line.split("=")[0]
        OmegaConf.update(rap, key, OmegaConf.select(plain, key))
    rap.recipe = plain.recipe
    assert rap == plain


def test_a_group_on_the_command_line_beats_the_recipes() -> None:
    composed = overrides.compose_config(["recipe=rap", "difficulty=all"])
    assert composed.probe.temperature == 0.7
    assert composed.difficulty.measure == "pism"
    assert composed.select.rap == ["cde", "ace", "drm"]


def test_choosing_by_measures_that_are_not_taken_is_refused() -> None:
    (problem,) = problems_of("recipe=rap_ace", "difficulty=pism")
    assert problem == (
        "select.rap=[ace]: needs ace in difficulty.extra_measures "
        "(difficulty=rap or difficulty=all)"
    )
    assert problems_of("recipe=rap", "select.strata=[hard]") == [
        "select.strata=[hard]: must be empty ([]) where select.rap selects"
    ]
    assert "may hold cde, ace, drm" in problems_of("recipe=rap", "select.rap=[pism]")[0]


def test_the_second_papers_thresholds_are_checked() -> None:
    text = "\n".join(
        problems_of("difficulty.ace.sigma=0", "difficulty.ace.window=0",
                    "difficulty.cde.lambda_c=1", "difficulty.pism.alpha=0",
                    "probe.cde_rollouts=0", "difficulty.ace.lamda_a=1")
    )  # fmt: skip
    for part in ("ace.sigma=0.0: must be above 0", "ace.window=0: must be at least 1, or null",
                 "cde.lambda_c=1.0: must lie", "pism.alpha=0.0: must lie",
                 "probe.cde_rollouts=0: must be at least 1",
                 "difficulty.ace.lambda_a?"):  # fmt: skip
        assert part in text


def test_the_difference_of_a_recipe_is_what_its_file_sets() -> None:
    assert overrides.recipe_difference(RunConfig()) == ["name=grpo_hard", "select.strata=[hard]"]


def test_defaults_are_the_papers_where_no_group_says_otherwise() -> None:
    config = RunConfig()
    assert config.difficulty.pism.tau == 0.1
    assert config.probe.draws == 10
    assert config.probe.mask_percents == list(range(0, 100, 10))
    assert config.probe.cde_rollouts == 5
    assert config.difficulty.cde.lambda_c == 0.5
    assert (config.difficulty.ace.sigma, config.difficulty.ace.lambda_a) == (2.0, 0.1)
    assert config.grpo.beta == 0.001
    assert config.grpo.num_generations == 8
    assert config.data.max_pixels == 1_254_400


def test_bad_settings_end_in_exit_code_2_without_a_traceback() -> None:
    done = run("difficulty.pism.tua=0.2", "grpo.num_generations=1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "did you mean difficulty.pism.tau?" in done.stderr
    assert "grpo.num_generations=1" in done.stderr


def test_settings_are_checked_without_importing_torch() -> None:
    code = (
        "import sys; from difftrain.cli import config_of; config_of('train', sys.argv[1:]);"
        "assert not {'torch', 'transformers', 'sympy', 'scipy'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code, "seed=2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_the_first_rank_speaks() -> None:
    done = run("a=1", RANK="1", WORLD_SIZE="2")
    assert done.returncode == 2
    assert done.stderr == ""


def test_the_composed_settings_can_be_printed() -> None:
    done = run("--cfg", "job", "recipe=grpo_mid", "seed=7")
    assert done.returncode == 0
    assert "name: grpo_mid" in done.stdout
    assert "seed: 7" in done.stdout


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf/data").glob("*.yaml")))
def test_every_data_group_composes_with_a_path(name: str, tmp_path: Path) -> None:
    path = () if name == "shapes" else (f"data.path={tmp_path}",)
    job = overrides.compose_config([f"data={name}", *path])
    assert name.startswith(job.data.source.value)


def test_a_folder_that_is_not_there_is_told_from_a_hub_id() -> None:
    assert problems_of("data=orsta", "data.path=./nowhere/else") == [
        "data.path=./nowhere/else: there is no such file or folder"
    ]
    assert overrides.compose_config(["data=orsta_reasoning"]).data.tasks == [
        "math",
        "puzzle",
        "science",
        "chart",
    ]


def test_without_network_a_hub_id_ends_in_exit_code_2_and_names_the_folder() -> None:
    done = run("data=geometry3k", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "data.path=hiyouga/geometry3k: the hub did not give this dataset" in done.stderr
    assert "name its folder: data.path=FOLDER" in done.stderr
