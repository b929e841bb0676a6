"""Self-critical sequence training."""
