"""The report of a finished run. It says whether training helped and what the run cost."""
