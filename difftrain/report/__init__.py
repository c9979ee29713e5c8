"""The report of a finished run: did it help, why these samples, and what it cost."""
