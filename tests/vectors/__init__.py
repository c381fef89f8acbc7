"""Published vectors, and the programs that worked them out."""
