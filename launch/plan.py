"""What a run would do and cost, before anything is spent."""

from difftrain.cli import main

if __name__ == "__main__":
    main("plan")
