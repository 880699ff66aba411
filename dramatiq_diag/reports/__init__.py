"""Renders artifacts into reports that a person reads, and keeps them beside the artifacts."""
