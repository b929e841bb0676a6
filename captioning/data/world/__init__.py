"""The drawn world: scenes from above, their images and captions."""
