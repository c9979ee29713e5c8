"""Write the report of a finished run again, or show finished runs side by side."""

from difftrain.cli import main

if __name__ == "__main__":
    main("report")
