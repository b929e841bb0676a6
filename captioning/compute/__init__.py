"""What decides the last digit of a result: processes, seeds, matrix products."""
