"""Stages of a DVC pipeline side by side. It knows DVC, not captions."""
