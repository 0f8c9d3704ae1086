"""What simulated processes share or use up: hosts, the network, memory, pools, the message broker."""
