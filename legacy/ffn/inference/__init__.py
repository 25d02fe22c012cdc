"""What old notebooks use of the inference: `ffn.inference.storage`."""
