"""The routes over HTTP: the contract's under /api/v1 and /wapi/v1, our own under /satchel/v1."""
