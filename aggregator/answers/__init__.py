"""What all answers have in common: their headers, who is answered at all, and compression."""
