"""SQLite: the file, its connections and schema, and the one thread that writes to it."""
