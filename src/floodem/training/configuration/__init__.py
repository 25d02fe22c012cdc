"""Options of a run: from TOML, flags and Python to frozen dataclasses, and back."""
