"""Commands for those who maintain the project: `python -m tools.NAME`."""
