"""From the overrides of a command line to composed settings, or to every problem in them at once.

Hydra composes; each override is first checked by itself against the settings tree.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from difftrain.config.run_config import ConfigError, RunConfig, format_value, problems
from difftrain.config.setting import did_you_mean

CONF = Path(__file__).resolve().parents[1] / "conf"
OPTIONAL_GROUPS = ("debug",)
"""Groups of which none may be chosen; Hydra itself takes no null for a group."""
OPEN_KEYS = ("grpo.trl.", "sft.trl.", "model.server.extra.")
"""Below these keys TRL's and a server's own names are allowed, with a plus before them."""
_RENAMED = {
    "data": "boxes:box_format drawing_seed:world_seed pool:num_samples",
    "difficulty": (
        "ace.normalise:ace.normalize also:extra_measures cmab.hard_from:cmab.hard_min "
        "cmab.hard_upto:cmab.hard_max drm.hard_from:drm.hard_min "
        "pism.easy_from:pism.easy_min pism.guess:pism.chance_correction "
        "pism.hard_upto:pism.hard_max"
    ),
    "evaluate": (
        "any_count:allow_count_mismatch deviations:harness_overrides "
        "judging.attempts:judge_client.max_attempts judging.calls:judge_client.max_calls "
        "judging.concurrency:judge_client.max_concurrency "
        "judging.first_wait_seconds:judge_client.backoff_s "
        "judging.timeout_seconds:judge_client.timeout_s places:paths"
    ),
    "grade": "text_right_from:text_correct_min",
    "grpo": (
        "answer_seconds:grading_timeout_s epochs:num_train_epochs group_size:num_generations "
        "held_out:eval_samples held_out_every:eval_steps kl:beta layout_weight:format_weight "
        "length_free:overlong_free_share length_weight:overlong_weight "
        "max_completion_tokens:max_completion_length "
        "per_device_batch:per_device_train_batch_size rate_schedule:lr_scheduler_type "
        "save_every:save_steps vllm.longest:vllm.max_model_length "
        "vllm.memory:vllm.gpu_memory_utilization vllm.sleep:vllm.enable_sleep_mode "
        "vllm.tensor_parallel:vllm.tensor_parallel_size vllm.url:vllm.server_base_url"
    ),
    "model": (
        "server.attempts:server.max_attempts server.concurrency:server.max_concurrency "
        "server.first_wait_seconds:server.backoff_s server.key_from:server.api_key_env "
        "server.longest_wait_seconds:server.max_outage_s "
        "server.timeout_seconds:server.timeout_s vllm.longest:vllm.max_model_len "
        "vllm.memory_share:vllm.gpu_memory_utilization vllm.open_requests:vllm.max_num_seqs "
        "vllm.tensor_parallel:vllm.tensor_parallel_size"
    ),
    "probe": "again:retest_samples grid:until percents:mask_percents rollouts:cde_rollouts",
    "select": "keep:strata sft_keep:sft_strata",
    "sft": (
        "epochs:num_train_epochs per_device_batch:per_device_train_batch_size "
        "rate_schedule:lr_scheduler_type save_every:save_steps"
    ),
}
"""By section, names of earlier versions and their present ones, as OLD:NEW."""
RENAMED_KEYS = {"artefacts": "output_dir", "program": "train_stages", "report.to": "report_to"} | {
    f"{section}.{old}": f"{section}.{new}"
    for section, pairs in _RENAMED.items()
    for old, new in (pair.split(":") for pair in pairs.split())
}
"""Settings of earlier versions by their present names."""
RENAMED_VALUES = {
    "evaluate.contamination": {"refuse": "error", "tell": "warn"},
    "probe.until": {"early": "ratio", "full": "grid"},
    "sft.targets": {"solution": "rationale"},
}
"""Values of earlier versions by their present names."""


@cache
def config_groups() -> dict[str, list[str]]:
    """The config groups and the names in each."""
    return {
        folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
        for folder in sorted(CONF.iterdir())
        if folder.is_dir()
    }


def setting_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the settings tree, leaves and branches."""
    for field in fields(node):
        yield f"{prefix}{field.name}"
        if is_dataclass(value := getattr(node, field.name)):
            yield from setting_keys(value, f"{prefix}{field.name}.")


def value_at(node: Any, key: str) -> Any:
    """The value at a dotted key of the settings tree."""
    for part in key.split("."):
        node = getattr(node, part)
    return node


def first_line(error: Exception) -> str:
    """The first line of a library's message, which says what is wrong."""
    return str(error).strip().splitlines()[0]


def parse_overrides(arguments: list[str]) -> tuple[list[Override], list[str]]:
    """The arguments that are overrides, and a problem for each that is not."""
    overrides, errors = [], []
    parser = OverridesParser.create()
    for argument in arguments:
        try:
            overrides.append(parser.parse_override(argument))
        except HydraException:
            errors.append(f"{argument}: not of the form KEY=VALUE")
    return overrides, errors


def leaves_group_out(override: Override) -> bool:
    """Whether this chooses none of an optional group, which is the default."""
    return override.key_or_group in OPTIONAL_GROUPS and override.value() is None


def override_problem(override: Override, typed: DictConfig) -> str | None:
    """What is wrong with one override by itself, or None. `typed` checks the value's type."""
    key, text = override.key_or_group, override.input_line or ""
    if override.is_sweep_override():
        return f"{text}: one run has one value; run other seeds with seed=N"
    if key in config_groups():
        name, names = override.value(), config_groups()[key]
        if name in names or leaves_group_out(override):
            return None
        if not isinstance(name, str):
            return f"{text}: {key} needs one of {', '.join(names)}"
        return f"{text}: there is no {key} of that name{did_you_mean(name, names)}"
    if key.startswith(OPEN_KEYS):
        return None
    if key in RENAMED_KEYS:
        new_key, value = RENAMED_KEYS[key], text.partition("=")[2]
        value = RENAMED_VALUES.get(new_key, {}).get(value, value)
        return f"{text}: was renamed; write {new_key}={value}"
    keys = list(setting_keys(RunConfig()))
    if key not in keys:
        return f"{text}: there is no setting {key}{did_you_mean(key, [*keys, *config_groups()])}"
    if override.is_add() or override.is_delete():
        return f"{text}: {key} exists already; write {key}=VALUE"
    if is_dataclass(value_at(RunConfig(), key)):
        return f"{text}: {key} is a group of settings; set one of its keys"
    value = override.value()
    if isinstance(value, str) and (new := RENAMED_VALUES.get(key, {}).get(value)):
        return f"{text}: was renamed; write {key}={new}"
    try:
        OmegaConf.update(typed, key, value)
    except OmegaConfBaseException as error:
        return f"{text}: {first_line(error)}"
    return None


def compose_config(arguments: list[str]) -> DictConfig:
    """The composed settings of a command line. Raises ConfigError with every problem in it."""
    overrides, errors = parse_overrides(arguments)
    typed = OmegaConf.structured(RunConfig)
    valid = []
    by_key = {override.key_or_group: override for override in overrides}
    if "model.name" in by_key and "model" not in by_key:
        # The default group holds the tiny model's settings, which another model does not get.
        is_group = by_key["model.name"].value() in config_groups()["model"]
        valid += [] if is_group else ["model=any"]
    for override in overrides:
        if problem := override_problem(override, typed):
            errors.append(problem)
        elif not leaves_group_out(override):
            valid.append(override.input_line or "")
    try:
        ConfigStore.instance().store("schema", RunConfig)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            job = compose("run", valid, return_hydra_config=True)
        recipe = job.hydra.runtime.choices["recipe"]
        with open_dict(job):
            del job["hydra"]
        job.recipe = recipe
        errors += problems(OmegaConf.to_object(job))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([*errors, first_line(error)]) from error
    if errors:
        raise ConfigError(list(dict.fromkeys(errors)))
    return job


def file_keys(group: str, name: str) -> Iterator[str]:
    """The dotted keys that conf/<group>/<name>.yaml sets, after those of the groups it chooses."""
    path = CONF / group / f"{name}.yaml"
    is_global = path.read_text().startswith("# @package _global_")
    return node_keys(OmegaConf.load(path), "" if is_global else f"{group}.")


def node_keys(node: Any, prefix: str) -> Iterator[str]:
    """The dotted keys of a file's node."""
    for choice in node.get("defaults", []):
        (group, name), *_ = choice.items()
        yield from file_keys(group.removeprefix("override").strip(" /"), name)
    for key, value in node.items():
        if isinstance(value, DictConfig):
            yield from node_keys(value, f"{prefix}{key}.")
        elif key != "defaults":
            yield f"{prefix}{key}"


def recipe_difference(config: RunConfig) -> list[str]:
    """The keys that the recipe's file sets, with this run's values: what defines this recipe."""
    keys = file_keys("recipe", config.recipe)
    return [f"{key}={format_value(value_at(config, key))}" for key in keys]
