"""What every run stands on: errors, devices, lanes, checkpoints, workdirs. Knows no data set and no model."""
