"""The JSON documents of the HTTP API and the command line."""
