"""What decides the last digit: instructions, processes, seeds, pinned packages."""
