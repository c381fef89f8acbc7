"""What happened, in tables that follow the log: written by one thread, looked up by subject."""
