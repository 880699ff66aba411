"""Where the bytes of artifacts are kept."""
