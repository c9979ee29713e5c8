"""Seeds derived from a root seed, a purpose and its parts, such as a sample id and a draw."""

import subprocess
import sys

from difftrain.seeds import derive


def test_a_seed_is_the_same_in_every_process() -> None:
    code = "from difftrain.seeds import derive; print(derive(3, 'mask', 'ab', 30, 2))"
    printed = {subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2)}
    assert printed == {f"{derive(3, 'mask', 'ab', 30, 2)}\n"}


def test_a_seed_depends_on_the_root_seed_and_on_every_part_of_its_purpose() -> None:
    seeds = {
        derive(0, "mask", "ab", 30, 2),
        derive(1, "mask", "ab", 30, 2),
        derive(0, "draw", "ab", 30, 2),
        derive(0, "mask", "ac", 30, 2),
        derive(0, "mask", "ab", 40, 2),
        derive(0, "mask", "ab", 30, 3),
    }
    assert len(seeds) == 6
    assert all(0 <= seed < 2**32 for seed in seeds)
