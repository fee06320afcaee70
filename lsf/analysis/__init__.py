"""From recorded measurements to scores and plans: numpy, pure, tested in milliseconds."""
