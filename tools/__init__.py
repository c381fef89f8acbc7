"""The `satchel` command and the programs around it: what a person runs."""
