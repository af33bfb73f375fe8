"""Common to all answers: their headers, the names that are answered under, and compression."""
