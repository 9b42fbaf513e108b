"""Training data: sections, features of frozen encoders, augmentation and batches."""
