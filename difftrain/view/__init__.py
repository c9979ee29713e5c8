"""The explorer, `difftrain view`: a page on this machine to look at samples and benchmark items.

folders.py finds a run's files, index.py filters and sorts samples, sample.py reads one sample,
items.py compares benchmark items, maps.py computes attention maps, server.py answers the browser.
"""
