"""Servers that tests start on this machine: files over http, S3 and Google Cloud Storage."""
