"""What the HTML pages show."""
