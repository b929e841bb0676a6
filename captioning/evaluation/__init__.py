"""Predictions, scores, yardsticks and significance."""
