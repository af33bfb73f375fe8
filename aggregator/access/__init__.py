"""Who may send: enrolment tokens of nodes."""
