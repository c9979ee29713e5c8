"""Compare two finished evaluations item by item: is the second checkpoint better?"""

from difftrain.cli import main

if __name__ == "__main__":
    main("compare")
