"""Work on the whole store: cleanup, check, uninstall."""
