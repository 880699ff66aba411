"""Blobs: bytes under one root."""

from ...settings import Settings
from .base import BlobStore
from .local import LocalBlobStore


def blob_store_of(settings: Settings) -> BlobStore:
    """Returns: The blob store that the settings name; makes nothing yet."""
    return LocalBlobStore(settings.blob_dir)
