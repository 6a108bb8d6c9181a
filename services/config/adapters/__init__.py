"""What is outside behind our ports: Redis, the files of join tokens and of the CA, the Envoys, the instances' health."""
