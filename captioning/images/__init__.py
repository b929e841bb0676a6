"""Captioned images: their Parquet table, and what is decoded."""
