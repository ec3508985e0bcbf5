"""A Franka with a Robotiq 2F-85 and two cameras as a Gymnasium environment, simulated or real."""
