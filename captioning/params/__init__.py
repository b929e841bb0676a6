"""params.yaml: its sections, its faults, and the recipes made from it."""
