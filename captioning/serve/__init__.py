"""A page on this machine that captions a picture with trained rows: `python -m captioning.serve`."""
