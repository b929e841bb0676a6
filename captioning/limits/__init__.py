"""Whether a stage fits into memory, asked before it starts. Nothing here changes an output."""
