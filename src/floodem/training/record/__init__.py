"""What a training run leaves to be looked at: numbers, pictures, a page and TensorBoard events."""
