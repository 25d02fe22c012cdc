"""What is at an address, and whether volumes belong together."""
