"""Published systems, their scores and sources, and which of them the run may be compared with."""
