"""Hold a live server to its own document, and the document to those who make clients of it."""
