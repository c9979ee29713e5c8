"""Look at the samples of a finished run, or of finished scores, in the browser."""

from difftrain.cli import main

if __name__ == "__main__":
    main("view")
