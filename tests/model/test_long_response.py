"""A response of 4,096 tokens goes through the whole attention pass in bounded memory.

The pass measures the attention of responses for two difficulty measures, CMAB (cross-modality
attention balance) and ACE (attention confidence, from max_log_psi). image_LT is the attention on
the image by L layers and T response tokens.
"""

import subprocess
import sys

import pytest

SCRIPT = """
from pathlib import Path
from difftrain.config.difficulty import DifficultyConfig
from difftrain.config.model import Dtype, ModelConfig
from difftrain.model.loading import load
from difftrain.probe.attention_pass import measure_batch
from difftrain.records import Measure, Rollout, Verdict, View
from difftrain.config.run_config import RunConfig
from difftrain.shapes import pool

loaded = load(
    ModelConfig(name="tiny", dtype=Dtype.float32), min_pixels=3136, max_pixels=12544)
config = RunConfig()
config.difficulty = DifficultyConfig(measure=Measure.cmab, extra_measures=[Measure.ace])
samples = list(pool.samples(pool.Split.pool, 3))

def sample_and_rollout(sample, num_tokens):  # a rollout of arbitrary tokens
    ids = tuple(5 + i % 300 for i in range(num_tokens))
    rollout = Rollout(
        sample_id=sample.sample_id, view=View.full_image, mask_percent=0, draw=0, seed=0,
        response="", num_tokens=num_tokens, token_ids=ids, hit_eos=True, verdict=Verdict.correct)
    return sample, rollout

def memory_mib(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))

measure_batch(loaded, [sample_and_rollout(samples[0], 8)], config, config.seed)  # warm-up
Path("/proc/self/clear_refs").write_text("5")  # resets the peak (VmHWM)
before = memory_mib("VmRSS")
batch = [sample_and_rollout(samples[0], 4096), sample_and_rollout(samples[1], 2048)]
rows = measure_batch(loaded, batch, config, config.seed)
after = memory_mib("VmHWM")
assert [len(row.image_LT) for row in rows] == [4, 4]  # the tiny model has 4 layers
assert [len(row.image_LT[0]) for row in rows] == [4096, 2048]
assert all(row.max_log_psi is not None for row in rows)
print(after - before)
"""


@pytest.mark.slow
def test_a_response_of_4096_tokens_takes_less_than_half_a_gigabyte() -> None:
    """The attention matrices of one layer would take 840 MB.

    They have 2 rows of the batch, 6 heads, and 4 bytes per pair of 4,096 tokens and the prompt's.
    """
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert float(result.stdout.split()[-1]) < 500  # MiB
