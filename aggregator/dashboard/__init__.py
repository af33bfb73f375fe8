"""The web page: flamegraph of the chosen time for one machine or many."""
