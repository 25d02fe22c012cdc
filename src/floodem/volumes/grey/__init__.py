"""Grey values: normalised, counted, evened."""
