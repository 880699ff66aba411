"""Rows in the database, and blobs."""
