"""Run a stage or a command: inputs, progress, states, tracking, errors without secrets. Nothing here alters outputs."""
