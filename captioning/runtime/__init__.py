"""Run a stage: unchanged inputs, progress, saved states, tracking. Nothing here changes an output."""
