"""Numbers, truths and texts as JSON has them: no text for a number, no number for a truth, nothing without a value.

mergekit's form, which is YAML, is read less strictly (`app.recipes.mergekit.form`).
"""

from typing import Annotated

from pydantic import AfterValidator, AllowInfNan, Strict, StrictBool, StrictInt


def _written(text: str) -> str:
    """JSON can write half of a character ("\\ud800"), which neither UTF-8 nor the database can."""
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError("must be text of whole characters")
    return text


Number = Annotated[float, Strict(), AllowInfNan(False)]  # noqa: FBT003  (the library's)
Whole = StrictInt
Flag = StrictBool
Text = Annotated[str, AfterValidator(_written)]
