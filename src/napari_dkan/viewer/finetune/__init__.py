"""Fine-tuning in the window, in a process of its own."""
