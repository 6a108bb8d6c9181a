"""What is outside and is neither SQL nor another service of the mesh."""
