"""What crosses a process boundary: pydantic models, names of tasks and queues, store clients."""
