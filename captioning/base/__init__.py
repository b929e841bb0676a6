"""Errors, and files that are written, read and hashed: every stage uses it."""
