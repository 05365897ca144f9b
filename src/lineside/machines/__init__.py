"""machines: is this machine still healthy? Condition monitoring from vibration and slow values."""
