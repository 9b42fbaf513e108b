"""What a bug report needs: versions, devices, readers, folders, display and checkpoint, tried."""
