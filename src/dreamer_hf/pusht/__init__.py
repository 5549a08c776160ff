"""The PushT task: players, the gym-pusht simulator, and its state read off pictures."""
