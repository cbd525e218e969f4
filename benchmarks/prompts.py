"""What the exact-search table continues: prompts of many kinds, in a fixed order.

The first eight are a list of their own. The rest take turns between kinds, so that the first
few of them are already varied.
"""

from __future__ import annotations

EIGHT = (
    "The capital of France is",
    "Q: Is the sky blue? A:",
    "My favourite colour is",
    "def add(a, b):\n    return",
    "The quick brown fox",
    "Once upon a time, there was a",
    "I think that the",
    "Translate to French: Hello ->",
)

_KINDS = (
    # Facts
    (
        "Water boils at a temperature of",
        "The largest planet in the solar system is",
        "The chemical symbol for gold is",
        "Mount Everest lies on the border between Nepal and",
        "The author of Romeo and Juliet is",
    ),
    # Code
    (
        "for i in range(10):\n    print(",
        "import numpy as",
        "SELECT name FROM users WHERE",
        "public static void main(String[]",
        'if __name__ == "',
    ),
    # Stories
    (
        "The old lighthouse keeper climbed the stairs and",
        "When Anna opened the letter, she",
        "It was a dark and stormy night, and the",
        "The dragon looked at the little mouse and said,",
    ),
    # Lists and sequences
    (
        "Monday, Tuesday, Wednesday,",
        "Shopping list: milk, eggs,",
        "1, 2, 4, 8, 16,",
        "Red, orange, yellow, green,",
        "Steps to make tea:\n1. Boil the water\n2.",
    ),
    # Arithmetic
    (
        "2 + 3 =",
        "12 * 12 =",
        "Half of one hundred is",
        "If I have three apples and eat one, I have",
    ),
    # Translation
    (
        "English: cat. Spanish:",
        "Translate to German: Good morning ->",
        "The French word for house is",
        "cheese in Italian is",
    ),
    # Chat
    (
        "<|im_start|>user\nWhat is your name?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nSay yes or no: is ice cold?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nName a fruit.<|im_end|>\n<|im_start|>assistant\n",
        "User: How are you today?\nAssistant:",
        "Customer: My parcel has not arrived.\nAgent:",
    ),
    # Questions with short answers
    (
        "Q: What is the opposite of hot?\nA:",
        "Q: Who was the first man on the moon?\nA:",
        "Is the following review positive or negative? 'I loved every minute.' Answer:",
        "True or false: the earth is flat. Answer:",
    ),
    # Other languages
    (
        "La capitale de l'Italie est",
        "Der schnelle braune Fuchs springt über den",
        "El perro es un animal",
        "Il était une fois une petite",
    ),
    # Headings, forms and fragments
    (
        "# Introduction\n\n",
        "Abstract. In this paper we",
        "Dear Sir or Madam,\n\nI am writing to",
        "Name: John Smith\nAge: 42\nOccupation:",
        "Breaking news:",
    ),
    # Idioms, where one ending is much more likely than all others
    (
        "Actions speak louder than",
        "An apple a day keeps the",
        "To be, or not to be, that is the",
        "The early bird catches the",
    ),
)


def varied() -> tuple[str, ...]:
    """All prompts, the eight first, then one of each kind in turn."""
    longest = max(map(len, _KINDS))
    turns = (kind[i] for i in range(longest) for kind in _KINDS if i < len(kind))
    return (*EIGHT, *turns)
