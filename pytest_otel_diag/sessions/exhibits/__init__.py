"""What a session keeps for its report: exemplar trace, critical path, facts for the judge."""
