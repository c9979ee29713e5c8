"""python -m difftrain.cli COMMAND: the difftrain command for accelerate launch -m."""

from difftrain.cli import main

if __name__ == "__main__":
    main()
