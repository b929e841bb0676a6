"""Tokens, CIDEr-D and resamples, which SCST and the evaluation share."""
