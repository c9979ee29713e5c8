"""The benchmarks of the model that model.name names, outside any recipe.

python launch/evaluate.py [KEY=VALUE ...]
"""

from launch.command_line import launch

if __name__ == "__main__":
    launch("recipes.chain:evaluate")
