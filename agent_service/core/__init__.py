"""What every room stands on: errors, time, keys, codec, settings. Pure: no sockets, no files."""
