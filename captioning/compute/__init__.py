"""What decides the last digit of a result: instructions, processes, seeds, pinned packages."""
