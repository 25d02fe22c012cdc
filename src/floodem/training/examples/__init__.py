"""Examples: volumes and centres in, fields of view of many patches at once out."""
