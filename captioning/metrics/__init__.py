"""Tokens, CIDEr-D: what a reward and an evaluation share."""
