"""One reader a form in which captioned images are owned, and the rows that all of them give."""
