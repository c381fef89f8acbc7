"""Every number the rule book defines: ints in, ints out; `State` is not importable here."""
