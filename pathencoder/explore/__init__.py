"""One HTML page to explore the features of slides with a browser, without a network."""
