"""Check that a stage fits into memory before it starts. Nothing here changes an output."""
