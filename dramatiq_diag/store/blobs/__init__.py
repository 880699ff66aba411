"""Blobs: bytes under one root, and what this host caches of them."""

from ...runtime.disk_cache import DiskCache
from ...settings import Settings
from .base import BlobStore
from .local import LocalBlobStore
from .objects import ObjectBlobStore


def blob_store_of(settings: Settings) -> BlobStore:
    """Returns: The blob store that the settings name; makes nothing yet."""
    if settings.blob_dir is None:
        return ObjectBlobStore(settings.blob_url or "")
    return LocalBlobStore(settings.blob_dir)


def cache_of(settings: Settings) -> DiskCache:
    """Returns: The cache of this host; makes nothing yet."""
    return DiskCache(settings.cache / "reports", settings.cache_max_bytes)
