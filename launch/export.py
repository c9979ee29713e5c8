"""Write the scores and the selected samples in the formats of several trainers."""

from difftrain.cli import main

if __name__ == "__main__":
    main("export")
