"""``python -m sb3_q2rl robot``: check, record, bc, learn, evaluate and serve, on a simulated or a real Franka."""
