"""Merge an adapter into the unquantised weights: `python -m captioning.export`."""
