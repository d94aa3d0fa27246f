"""What the events of the page have in common."""

# Nothing on the page flickers while one runs, and programs are offered the named endpoints alone.
QUIET = {"show_progress": "hidden", "api_visibility": "private"}
