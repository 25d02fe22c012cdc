"""The flood-filling network: its modules, its model file, and the device it runs on."""
