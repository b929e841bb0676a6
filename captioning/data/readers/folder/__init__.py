"""One reader a form in which a folder holds captioned images, and which form lies there."""
