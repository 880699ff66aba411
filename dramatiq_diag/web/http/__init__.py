"""Holds the parts of HTTP that do not depend on any resource."""
