"""Running a published merge again, and saying whether the same bytes come out."""
