"""The code for PostgreSQL, with the driver psycopg."""
