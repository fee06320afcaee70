"""Examples and where they come from: lessons, local files, the Hugging Face hub. No torch here."""
