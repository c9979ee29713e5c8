"""What a run would do and cost, before anything is spent.

python launch/plan.py --help
"""

from difftrain.cli import main

if __name__ == "__main__":
    main("plan")
