"""What is read off a model: torch lives here; numbers leave as float32 arrays in frozen records."""
