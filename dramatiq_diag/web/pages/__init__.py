"""Reads the rows for the HTML pages, and renders them."""
