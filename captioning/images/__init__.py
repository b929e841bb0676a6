"""Captioned images: decoding, and their Parquet table."""
