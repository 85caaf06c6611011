"""Files in and out: what a school keeps in spreadsheets and zips, to the database and back."""
