"""How files are written and read, and what is said of a fault: every stage needs it."""
