"""Fine-tuning: a checkpoint learns from measured spots of the very section it is to be used on."""
