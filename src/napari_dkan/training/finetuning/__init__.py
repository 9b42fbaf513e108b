"""Fine-tune a checkpoint on measured spots of the section on which it will be used."""
