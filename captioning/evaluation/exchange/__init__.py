"""What others need for a comparison: scores under their protocols, and files that their scorers read."""
