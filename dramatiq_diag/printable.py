"""Text for a terminal; names and ids come from messages and from the programs that are measured."""


def printable(text: str) -> str:
    """Returns: The text without what could steer a terminal, line ends included."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
