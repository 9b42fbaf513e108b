"""Fine-tuning panel; training runs in a child process."""
