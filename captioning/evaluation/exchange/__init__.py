"""What others need for a comparison: scores under their protocols, files that their scorers read, numbers for DVC."""
