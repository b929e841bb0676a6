"""Scenes larger than an image of the model: their tiles, captions of these, and maps."""
