"""TensorFlow checkpoints of the older packages: bundles in, model files out."""
