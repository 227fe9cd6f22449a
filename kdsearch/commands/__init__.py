"""The commands that are nothing but commands; each module has `add_to`. `parser` and `answer` serve all."""
