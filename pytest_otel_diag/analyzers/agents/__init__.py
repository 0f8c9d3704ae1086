"""Adapters for agents in processes of their own: each is an analyzer that starts or calls an agent."""
