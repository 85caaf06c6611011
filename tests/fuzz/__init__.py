"""Send bytes and JSON that no client should send to a server of the service, and check all that must hold meanwhile."""
