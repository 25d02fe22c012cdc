"""Published networks and sample volumes: catalogue, download, import under a name."""
