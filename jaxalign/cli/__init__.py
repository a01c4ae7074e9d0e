"""The command line: parse, build, run. No mathematics."""
