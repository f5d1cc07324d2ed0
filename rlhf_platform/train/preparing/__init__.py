"""What a run needs before its actors start: data, and the checkpoint that RL begins with."""
