"""Parquet shards as `datasets` writes and the Hub converts them: their columns, and their rows."""
