"""Files and small objects on http, gs and s3 servers, asked with patience."""
