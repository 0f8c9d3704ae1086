"""Options, declared once, and their values from command line, environment and ini file."""
