"""The auditor's side: what was made, what arrived, what is in order, what is missing. FORMAT.md §10."""
