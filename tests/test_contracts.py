"""The functions that other tools call keep their names, parameters and defaults."""

import inspect
from importlib import import_module

import pytest

# The letters at the end of a name are the axes of an array: N samples, R mask ratios, K draws, M
# rollouts, L layers, T response tokens, B batch, S sequence, H height, W width, C colors. The
# modules of `difficulty` are measures of difficulty; `rap` is a method that selects samples.
SIGNATURES = {
    "seeds.derive": "root, *purpose",
    "probe.masks.mask": "pixels_HWC, percent, seed, kind='pixels'",
    "probe.schedule.next_draws": (
        "correct_RK, tau=0.1, until='ratio', ratio_R=None, hard_max=0.4, easy_min=0.7"
    ),
    "difficulty.pism.failure_ratio": "correct_RK, ratio_R, tau=0.1",
    "difficulty.pism.stratum": "failure_ratio, hard_max=0.4, easy_min=0.7, easy_inclusive=True",
    "difficulty.cmab.balance": "image_LT, text_LT, epsilon=1e-08",
    "difficulty.cmab.stratum": "rho, solved",
    "difficulty.cde.discrepancy": "with_image_M, text_only_M",
    "difficulty.ace.bias": "attention_TT, sigma=2.0, min_rows=1, window=None",
    "difficulty.drm.difficulty": "with_image_M",
    "select.rap.choose": (
        "sample_id_N, discrepancy_N, bias_N, difficulty_N, draws, lambda_c=0.5, lambda_a=0.1"
    ),
    "model.attention.masses": "model, inputs, image_BS, text_BS, response_BS",
    "data.answers.infer_kind": "gold, task, question, options",
    "grade.grade": "response, sample",
    "evaluate.score_item": "benchmark, prediction, item, judge=None, rules='2025-11'",
    "evaluate.build_prompt": "benchmark, item",
    "evaluate.aggregate": "benchmark, rows",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_public_function_keeps_its_parameters(name: str) -> None:
    module, _, function = name.rpartition(".")
    signature = inspect.signature(getattr(import_module(f"difftrain.{module}"), function))
    parameters = []
    for parameter in signature.parameters.values():
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        text = f"{star}{parameter.name}{default}"
        # The enumeration member Until.ratio equals the string "ratio": both are the same default.
        parameters.append(text.replace("<Until.ratio: 'ratio'>", "'ratio'"))
    expected = SIGNATURES[name].split(", ")
    assert parameters[: len(expected)] == expected  # further parameters may follow
