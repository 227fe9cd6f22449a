"""The exit statuses of every command."""

DONE, FAILED, WRONG_REQUEST = 0, 1, 2
INTERRUPTED = 130
"""128 plus the number of SIGINT, as shells count."""
READER_GONE = 141
"""128 plus the number of SIGPIPE."""
