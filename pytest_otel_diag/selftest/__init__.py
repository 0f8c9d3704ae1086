"""The self-test: proves the oracle of each scenario before it judges an analyzer."""
