"""The commands that start a dispatcher and an ingest."""
