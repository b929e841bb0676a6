"""Where a checkpoint to start from comes from: fetched, or pre-trained here."""
