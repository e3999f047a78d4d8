"""Populations of convolutional networks as one network whose feature maps hold all members' channels side by side."""
