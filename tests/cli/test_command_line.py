"""Bad settings end in exit code 2 with every problem named, before torch is imported.

PISM, CDE, ACE and DRM are difficulty measures (difftrain/difficulty). PISM is from Qi et al. 2026.
CDE, ACE and DRM are from the paper RAP; the setting select.rap names those that select samples. A
recipe is a file under conf/recipe with the settings of one kind of run. Recipes without RAP select
samples by stratum (class of difficulty): easy, medium, hard or unsolved.
"""

import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from difftrain.cli import checked_config, overrides
from difftrain.config.model import Dtype
from difftrain.config.run_config import ConfigError, RunConfig, resolve

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml"))


def problems_of(*arguments: str) -> list[str]:
    """The problems that are reported for a command line."""
    with pytest.raises(ConfigError) as caught:
        overrides.compose_config(list(arguments))
    return caught.value.problems


def run_train(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The finished process of launch/train.py with these settings and environment variables."""
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "train.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_the_error_for_a_misspelt_key_suggests_the_nearest_key() -> None:
    (problem,) = problems_of("difficulty.pism.tua=0.2")
    assert "there is no setting difficulty.pism.tua" in problem
    assert "did you mean difficulty.pism.tau?" in problem


def test_a_plus_before_a_misspelt_key_does_not_add_it() -> None:
    (problem,) = problems_of("+difficulty.pism.tua=0.2")
    assert "did you mean difficulty.pism.tau?" in problem


def test_a_misspelt_group_and_a_misspelt_recipe_are_refused() -> None:
    group, recipe = problems_of("recpe=grpo_hard", "recipe=grpo_hrd")
    assert "did you mean recipe?" in group
    assert "did you mean grpo_hard?" in recipe


def test_null_for_a_config_group_is_reported_along_with_all_other_problems() -> None:
    model, recipe, seed = problems_of("model=null", "~recipe", "seed=abc")
    assert model.startswith("model=null: model must be one of: any, ")
    assert "~recipe: recipe must be one of: " in recipe
    assert "seed=abc" in seed
    done = run_train("model=null")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    overrides.compose_config(["debug=null"])  # debug alone may be null: it is the default


def test_a_misspelt_debug_is_refused_instead_of_running_the_full_job() -> None:
    """debug=smoke runs the job with few samples."""
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


def test_the_error_for_a_step_that_processes_cannot_share_evenly_suggests_valid_sizes() -> None:
    # 3 prompts x 3 generations are 9 completions, which 4 processes cannot share.
    done = run_train("grpo.prompts_per_step=3", "grpo.num_generations=3", RANK="0", WORLD_SIZE="4")
    assert done.returncode == 2
    assert "must be divisible by the number of processes (4)" in done.stderr
    assert "nearest: [4, 8, 12]" in done.stderr


def test_deepspeed_with_bf16_is_refused_for_a_model_in_float32() -> None:
    launched = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_MIXED_PRECISION": "bf16"}
    done = run_train("model=tiny", **launched)
    assert done.returncode == 2
    assert "model.dtype=float32: DeepSpeed was started with mixed_precision: bf16" in done.stderr


def test_a_command_that_does_not_train_runs_on_any_number_of_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    # 4 prompts x 4 generations are 16 completions, which 3 processes cannot share.
    uneven = ["grpo.prompts_per_step=4", "grpo.num_generations=4"]
    config = checked_config("score", uneven)
    assert config.grpo.step_problem(3) is not None  # but the score command accepts these settings
    with pytest.raises(ConfigError, match=r"number of processes \(3\)"):
        checked_config("train", uneven, trains=True)


def test_the_error_for_a_missing_data_file_names_it() -> None:
    (problem,) = problems_of("data=jsonl", "data.path=nowhere/my.jsonl")
    assert problem == "data.path=nowhere/my.jsonl: there is no such file"


def test_a_misspelt_model_and_a_missing_model_folder_are_refused() -> None:
    assert "did you mean tiny?" in problems_of("model.name=tny")[0]
    assert problems_of("model.name=./nowhere") == ["model.name=./nowhere: there is no such folder"]


def test_the_error_for_an_output_folder_that_cannot_be_written_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (problem,) = problems_of(f"output_dir={tmp_path}/file/artifacts")
    assert "is not a folder" in problem


def test_two_seeds_for_one_run_are_refused() -> None:
    (problem,) = problems_of("seed=1,2")
    assert problem == (
        "seed=1,2: a run takes one value per setting; train -m, or sweep, starts a run for each "
        "recipe, difficulty, data and seed"
    )


def test_model_name_without_a_model_group_does_not_use_the_tiny_models_settings() -> None:
    name_only = overrides.compose_config(["model.name=org/big"])
    assert name_only == overrides.compose_config(["model=any", "model.name=org/big"])
    # The values of the group model=any.
    assert (name_only.model.dtype, name_only.grpo.learning_rate) == (Dtype.bfloat16, 1e-6)
    assert (name_only.probe.max_new_tokens, name_only.evaluate.max_new_tokens) == (1024, 2048)
    with_tiny_group = overrides.compose_config(["model=tiny", "model.name=org/small"])
    assert with_tiny_group.grpo.max_completion_length == 40  # the value of the group model=tiny
    assert overrides.compose_config(["model.name=tiny"]) == overrides.compose_config([])


def test_keys_of_trls_config_may_be_added_below_grpo_trl() -> None:
    assert overrides.compose_config(["+grpo.trl.optim=sgd"]).grpo.trl == {"optim": "sgd"}


def test_the_error_for_a_misspelt_trl_key_comes_within_seconds_and_suggests_the_nearest() -> None:
    problems = problems_of("+grpo.trl.optin=sgd", "+grpo.trl.beta=0.1", "+grpo.trl.xyz=1")
    assert problems[0].startswith(
        f"grpo.trl.optin=sgd: TRL {version('trl')}'s GRPOConfig has no such key"
    )
    assert "did you mean grpo.trl.optim?" in problems[0]
    assert problems[1].startswith("grpo.trl.beta=0.1: managed by difftrain; set grpo.beta instead")
    assert problems[2] == f"grpo.trl.xyz=1: TRL {version('trl')}'s GRPOConfig has no such key"
    started = time.monotonic()
    done = run_train("+grpo.trl.optin=sgd")
    assert done.returncode == 2
    assert "did you mean grpo.trl.optim?" in done.stderr
    assert time.monotonic() - started < 20  # 3 s on an idle machine


def test_secrets_remote_code_and_publishing_are_refused_below_grpo_trl() -> None:
    unsafe = ("hub_token=hf_abc", "trust_remote_code=true")
    publishing = ("push_to_hub=true", "hub_model_id=a/b", "hub_strategy=end",
                  "hub_private_repo=true")  # fmt: skip
    problems = problems_of(*(f"+grpo.trl.{key}" for key in (*unsafe, *publishing)))
    assert "grpo.trl.hub_token" in problems[0]
    assert problems[0].endswith(": is a secret: use HF_TOKEN")
    assert problems[1].endswith(": is always off")
    assert len(problems) == len(unsafe) + len(publishing)
    assert all(text.endswith("a run must not publish its results") for text in problems[2:])
    done = run_train("+grpo.trl.hub_token=hf_abc")
    assert done.returncode == 2
    assert "use HF_TOKEN" in done.stderr
    assert "hf_abc" not in done.stderr + done.stdout


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_resolves_and_is_named_after_its_file(name: str) -> None:
    composed = overrides.compose_config([f"recipe={name}"])
    assert composed.recipe == composed.name == name


def test_two_recipes_differ_only_in_the_settings_of_their_files() -> None:
    hard = overrides.compose_config(["recipe=grpo_hard"])
    mid_hard = overrides.compose_config(["recipe=grpo_mid_hard"])
    hard.recipe = mid_hard.recipe
    hard.name = mid_hard.name
    assert hard != mid_hard
    hard.select.strata = mid_hard.select.strata
    assert hard == mid_hard


def test_the_rap_recipes_differ_only_in_the_measures_that_they_name() -> None:
    full_rap = overrides.compose_config(["recipe=rap"])
    assert full_rap.select.rap == ["cde", "ace", "drm"]
    for name, measures in (
        ("rap_cde", ["cde"]),
        ("rap_ace", ["ace"]),
        ("rap_cde_ace", ["cde", "ace"]),
    ):
        ablation = overrides.compose_config([f"recipe={name}"])
        assert ablation.select.rap == measures
        assert ablation != full_rap
        for key in ("select.rap", "name", "recipe"):
            OmegaConf.update(ablation, key, OmegaConf.select(full_rap, key))
        assert ablation == full_rap


def test_rap_differs_from_a_stratum_recipe_only_in_its_recipe_settings() -> None:
    """The recipe settings are the keys that the recipe's file sets."""
    grpo_hard = overrides.compose_config(["recipe=grpo_hard"])
    rap = overrides.compose_config(["recipe=rap"])
    recipe_settings = overrides.recipe_settings(resolve(rap))
    assert recipe_settings == [
        "difficulty.measure=drm", "difficulty.extra_measures=[cde, ace]",
        "probe.retest_samples=100",
        "probe.temperature=1.0", "name=rap", "select.strata=[]", "select.rap=[cde, ace, drm]",
    ]  # fmt: skip
    for text in recipe_settings:
        key = text.split("=")[0]
        OmegaConf.update(rap, key, OmegaConf.select(grpo_hard, key))
    rap.recipe = grpo_hard.recipe
    assert rap == grpo_hard


def test_a_config_group_on_the_command_line_overrides_the_recipes_choice() -> None:
    composed = overrides.compose_config(["recipe=rap", "difficulty=all"])
    assert composed.probe.temperature == 0.7  # of difficulty=all; the recipe has 1.0
    assert composed.difficulty.measure == "pism"
    assert composed.select.rap == ["cde", "ace", "drm"]


def test_selecting_by_a_measure_that_is_not_scored_is_refused() -> None:
    (problem,) = problems_of("recipe=rap_ace", "difficulty=pism")
    assert problem == (
        "select.rap=[ace]: needs ace in difficulty.extra_measures "
        "(difficulty=rap or difficulty=all)"
    )
    assert problems_of("recipe=rap", "select.strata=[hard]") == [
        "select.strata=[hard]: must be empty ([]) if select.rap names measures"
    ]
    assert "may name only cde, ace, drm" in problems_of("recipe=rap", "select.rap=[pism]")[0]


def test_values_beyond_the_limits_of_the_measures_settings_are_refused() -> None:
    text = "\n".join(
        problems_of("difficulty.ace.sigma=0", "difficulty.ace.window=0",
                    "difficulty.cde.lambda_c=1", "difficulty.pism.alpha=0",
                    "probe.cde_rollouts=0", "difficulty.ace.lamda_a=1")  # misspelt on purpose
    )  # fmt: skip
    for part in ("ace.sigma=0.0: must be above 0", "ace.window=0: must be at least 1, or null",
                 "cde.lambda_c=1.0: must lie", "pism.alpha=0.0: must lie",
                 "probe.cde_rollouts=0: must be at least 1",
                 "difficulty.ace.lambda_a?"):  # fmt: skip
        assert part in text


def test_recipe_settings_lists_exactly_the_settings_in_the_recipes_file() -> None:
    assert overrides.recipe_settings(RunConfig()) == ["name=grpo_hard", "select.strata=[hard]"]


def test_defaults_are_the_values_of_the_papers_qi_et_al_2026_and_rap() -> None:
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
    done = run_train("difficulty.pism.tua=0.2", "grpo.num_generations=1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "did you mean difficulty.pism.tau?" in done.stderr
    assert "grpo.num_generations=1" in done.stderr


def test_settings_are_checked_without_importing_torch() -> None:
    code = (
        "import sys; from difftrain.cli import checked_config;"
        "checked_config('train', sys.argv[1:]);"
        "assert not {'torch', 'transformers', 'sympy', 'scipy'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code, "seed=2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_the_first_rank_prints_the_errors_in_the_settings() -> None:
    done = run_train("a=1", RANK="1", WORLD_SIZE="2")
    assert done.returncode == 2
    assert done.stderr == ""


def test_the_composed_settings_can_be_printed() -> None:
    done = run_train("--cfg", "job", "recipe=grpo_mid", "seed=7")
    assert done.returncode == 0
    assert "name: grpo_mid" in done.stdout
    assert "seed: 7" in done.stdout


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf/data").glob("*.yaml")))
def test_every_data_config_can_be_composed_with_a_path(name: str, tmp_path: Path) -> None:
    # shapes is generated and reads no path.
    path = () if name == "shapes" else (f"data.path={tmp_path}",)
    job = overrides.compose_config([f"data={name}", *path])
    assert name.startswith(job.data.source.value)


def test_a_missing_folder_is_distinguished_from_a_hub_id() -> None:
    assert problems_of("data=orsta", "data.path=./nowhere/else") == [
        "data.path=./nowhere/else: there is no such file or folder"
    ]
    hub_dataset = overrides.compose_config(["data=orsta_reasoning"]).data
    assert hub_dataset.tasks == ["math", "puzzle", "science", "chart"]


def test_without_network_a_hub_id_is_refused_with_advice_to_use_a_local_folder() -> None:
    done = run_train("data=geometry3k", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "data.path=hiyouga/geometry3k: this dataset cannot be read from the hub" in done.stderr
    assert "name its folder: data.path=FOLDER" in done.stderr
