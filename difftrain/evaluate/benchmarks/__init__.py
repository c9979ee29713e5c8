"""The six benchmarks, one file each: prompt, scorer, results tables and data-set columns."""
