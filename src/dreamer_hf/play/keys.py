"""Which keys move which action, in the window and in the browser."""

# Keys for the low and the high end of each action dimension. As on a screen, up is the low end.
KEY_PAIRS = (
    ("left", "right"),
    ("up", "down"),
    ("a", "d"),
    ("w", "s"),
    ("q", "e"),
    ("z", "x"),
    ("f", "h"),
    ("t", "g"),
    ("j", "l"),
    ("i", "k"),
    ("u", "o"),
    ("n", "m"),
    ("3", "4"),
    ("1", "2"),
)
