"""Checkpoint files: format, card, training reference and import of published checkpoints.

Importing the package loads nothing; `checkpoint_card` and `training_reference` do not import torch.
"""
