"""The PushT task: the gym-pusht simulator, a scripted player, and the state of agent and block found in frames."""
