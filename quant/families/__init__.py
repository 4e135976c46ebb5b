"""Model families: one file per pipeline class; the file's name is the family's name."""
