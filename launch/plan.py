"""Show what a run would do and cost, before it starts."""

from difftrain.cli import main

if __name__ == "__main__":
    main("plan")
