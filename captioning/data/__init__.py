"""From a source to captioned images, splits and statistics."""
