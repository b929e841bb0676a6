"""The drawn world: scenes from above, their pictures and captions."""
