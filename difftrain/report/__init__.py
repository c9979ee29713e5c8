"""The report of a finished run: did training help, why these samples, and what it cost."""
