"""`satchel conformance`: Satchel's arithmetic and state machine against vectors that others wrote."""
