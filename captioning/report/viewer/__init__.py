"""The page that shows captions side by side."""
