"""Table II, the figures, the page."""
