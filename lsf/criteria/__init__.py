"""From recorded measurements to one score per block: numpy, pure, tested in milliseconds."""
