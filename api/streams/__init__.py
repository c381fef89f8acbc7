"""The WebSocket edge: what streams are called, what their messages say, who hears them, and when.   [W-6]"""
