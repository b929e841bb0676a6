"""params.yaml: its sections, its faults, the recipes made from it; and the pinned packages in groups."""
