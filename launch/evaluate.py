"""The benchmarks of any checkpoint or hub id, outside any recipe.

python launch/evaluate.py --help
"""

from difftrain.cli import main

if __name__ == "__main__":
    main("evaluate")
