"""Language models: what family they are, where their parts lie, how they are loaded, shared and kept within memory."""
