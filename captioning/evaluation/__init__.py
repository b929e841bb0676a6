"""Scores, yardsticks, significance."""
