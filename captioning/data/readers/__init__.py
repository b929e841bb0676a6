"""Readers of other people's data sets, one for each form; all of them give rows."""
