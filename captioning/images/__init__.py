"""A captioned image: its row in the Parquet table, its picture."""
