"""HTTP: the API on Starlette, and the server."""
