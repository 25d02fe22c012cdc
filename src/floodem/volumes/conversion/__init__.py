"""Any volume into any format: planned, copied with receipts, read back, verified later."""
