"""A stage's run: inputs held still, progress, states to go on from, tracking. Nothing here changes an output."""
