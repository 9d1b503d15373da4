"""The other libraries, a file each. They come with the ``bench`` extra."""
