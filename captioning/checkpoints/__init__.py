"""Starting checkpoints: fetched, or pre-trained here."""
