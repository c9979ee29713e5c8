"""What a run would do and cost, before anything is spent; with check=model also whether the model
is fit.

python launch/plan.py [KEY=VALUE ...] [check=model]
"""

import sys

from launch.command_line import fail, launch
from launch.words import nearest

CHECKS = {"model": "difftrain.recipes.preflight:check_model"}
CHECK = "check="

if __name__ == "__main__":
    asked = [word.removeprefix(CHECK) for word in sys.argv[1:] if word.startswith(CHECK)]
    sys.argv = [word for word in sys.argv if not word.startswith(CHECK)]
    if wrong := [each for each in asked if each not in CHECKS]:
        told = [f"  {CHECK}{each}: no such check{nearest(each, list(CHECKS))}" for each in wrong]
        fail("ConfigError: bad settings:\n" + "\n".join(told), 2)
    launch(CHECKS[asked[-1]] if asked else "difftrain.recipes.plan:show")
