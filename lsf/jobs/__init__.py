"""Background work: one worker per process, a queue, and what others see of a job."""
