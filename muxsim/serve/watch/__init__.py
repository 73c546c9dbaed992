"""What a browser watches: the feeds of the dashboard, and its page."""
