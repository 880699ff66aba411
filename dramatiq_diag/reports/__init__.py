"""Artifacts made visible: forms for a person's eyes, rendered from what is stored."""
