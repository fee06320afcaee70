"""The run folder, the durable contract: what was asked, what came of it, who holds it, and runs side by side."""
