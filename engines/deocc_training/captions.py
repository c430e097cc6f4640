"""Captions, classes and identities from what the packages say about their pictures."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from deocc_training.cutout import open_picture

__all__ = ["emoji_caption", "emoji_category", "emoji_identity", "openclipart_caption", "stamp_caption"]

_TONES = range(0x1F3FB, 0x1F400)
_JOINERS = {0x200D, 0xFE0F, 0xFE0E}
_GENDER = {0x2640: "woman", 0x2642: "man"}
_GROWN = {0x1F468: "man", 0x1F469: "woman", 0x1F9D1: "person"}
_ROLES = {
    0x1F373: "cook", 0x1F527: "mechanic", 0x1F33E: "farmer", 0x2695: "doctor", 0x1F393: "student", 0x1F3A4: "singer",
    0x1F3A8: "artist", 0x1F3EB: "teacher", 0x1F3ED: "factory worker", 0x1F4BB: "programmer", 0x1F4BC: "office worker",
    0x1F52C: "scientist", 0x1F680: "astronaut", 0x1F692: "firefighter", 0x2696: "judge", 0x2708: "pilot",
    0x1F9AF: "with white cane", 0x1F9BC: "in motorized wheelchair", 0x1F9BD: "in wheelchair", 0x1F9B0: "with red hair",
    0x1F9B1: "with curly hair", 0x1F9B2: "bald", 0x1F9B3: "with white hair", 0x1F384: "santa", 0x1F37C: "feeding baby",
}  # fmt: skip
_NOT_OBJECTS = re.compile(
    r"\b(SYMBOLS?|SIGN|ARROWS?|SQUARE|CIRCLE|CLOCK FACE|FLAG|INPUT|MODIFIER|DIAMOND|MARK|TRIANGLE|BUTTON|PROHIBITED"
    r"|NO|NON-POTABLE|DO NOT|RESTROOM|MENS|WOMENS|WATER CLOSET|CUSTOMS|BAGGAGE|LUGGAGE|PASSPORT|ELEVATOR|OFF|MODE"
    r"|WIRELESS|CINEMA|AUTOMATED|ATM|INFINITY|INFORMATION|STAR OF DAVID|MENORAH|CROSS|CRESCENT|WHEEL OF|PEACE|YIN"
    r"|KEYCAP|LETTER|SPARKLES|MILKY|STARS|BEHIND|DASH|SPLASHING|SLEEPING SYMBOL|CYCLONE|RAIN|SNOW CLOUD|FOG|SUNRISE"
    r"|SUNSET|NIGHT|BRIDGE AT|DUSK|FOUNTAIN|CITYSCAPE|COLLISION|MUSICAL|RECYCLING|ATOM|UNIVERSAL|LATIN|HUNDRED|CURRENCY"
    r"|CHART|TREND|ROMANTIC|MOBILE PHONE OFF|VIBRATION|ANTENNA|OPHIUCHUS|NOTES|SPEECH|THOUGHT|BUBBLE)\b"
)
# Signs of the older blocks that are things one can pick up or look at.
_OLD_OBJECTS = frozenset(
    {0x231A, 0x231B, 0x2328, 0x23F0, 0x23F3, 0x23F1, 0x2602, 0x2603, 0x260E, 0x2614, 0x2615, 0x261D, 0x265F, 0x2693,
     0x2694, 0x2696, 0x2697, 0x2699, 0x26B0, 0x26B1, 0x26BD, 0x26BE, 0x26C4, 0x26CF, 0x26D1, 0x26D3, 0x26E9, 0x26EA,
     0x26F0, 0x26F1, 0x26F3, 0x26F4, 0x26F5, 0x26F7, 0x26F8, 0x26F9, 0x26FA, 0x26FD, 0x2702, 0x2708, 0x2709, 0x270A,
     0x270B, 0x270C, 0x270D, 0x270F, 0x2712, 0x2744, 0x2764, 0x2B50}
)  # fmt: skip


def _plain(code_points: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(c for c in code_points if c not in _TONES and c not in _JOINERS)


def _name(code_point: int) -> str:
    name = unicodedata.name(chr(code_point), "")
    return re.sub(r"^(BLACK|WHITE|HEAVY|NEGATIVE|OLDER) (?!HEART)|\bBLACK (?=HEART)| SUIT$", "", name)


def emoji_category(code_points: tuple[int, ...]) -> str | None:
    """The rough class of an emoji, or None for flags, signs, clocks and other things that are no objects.

    Tones and genders do not matter to it: it is part of the identity, which all variants share.
    """
    plain = tuple(c for c in _plain(code_points) if c not in _GENDER)
    if not plain or plain[0] in (0x1F441,) or any(0x1F1E6 <= c <= 0x1F1FF or c == 0x20E3 for c in plain):
        return None
    first, name = plain[0], unicodedata.name(chr(plain[0]), "")
    if first < 0x1F300:
        return "thing" if first in _OLD_OBJECTS else None
    if 0x1F3FB <= first <= 0x1F3FF or 0x1F700 <= first <= 0x1F8FF or _NOT_OBJECTS.search(name) or not name:
        return None
    if 0x1F400 <= first <= 0x1F43F or 0x1F980 <= first <= 0x1F9AE or 0x1FAB0 <= first <= 0x1FAB3:
        return "animal"
    if len(plain) > 1:
        return "person"
    if re.search(
        r"\b(PERSON|MAN|WOMAN|BOY|GIRL|HANDS?|FINGERS?|EAR|LEG|FOOT|BABY|PRINCESS|PRINCE|FAMILY|COUPLE"
        r"|FIST|PALMS?|THUMBS?|POINTING|RUNNER|SURFER|SWIMMER|LIFTER|GOLFER|BICYCLIST|PEDESTRIAN|OFFICER|WORKER|GUARDSMAN"
        r"|DANCER|SPY|SNOWBOARDER|SKIER|ROWBOAT|MASSAGE|HAIRCUT|NINJA|MAGE|FAIRY|VAMPIRE|MERPERSON|ELF|GENIE|ZOMBIE|TROLL"
        r"|SUPERHERO|SUPERVILLAIN|WRESTLERS|BRIDE|CHRISTMAS|SELFIE|BICEPS|NAIL|CHILD|ADULT|JUGGLING|CARTWHEEL|POLO|HANDBALL)\b",
        name,
    ):
        return "person"
    if "FACE" in name or 0x1F600 <= first <= 0x1F644:
        return "face"
    if 0x1F32D <= first <= 0x1F37F or 0x1F950 <= first <= 0x1F96F or 0x1FAD0 <= first <= 0x1FADF:
        return "food"
    return "vehicle" if 0x1F680 <= first <= 0x1F6FF else "thing"


def emoji_identity(code_points: tuple[int, ...]) -> str:
    """One name for all skin tones and genders of an emoji, which are the same drawing in other colours."""
    plain = [0x1F9D1 if c in _GROWN else c for c in _plain(code_points) if c not in _GENDER]
    return "-".join(f"{c:x}" for c in plain)


def emoji_caption(code_points: tuple[int, ...]) -> str:
    """Words from the Unicode names; sequences read "woman cook", "man runner", "man and woman and boy"."""
    plain = _plain(code_points)
    gender = next((_GENDER[c] for c in plain if c in _GENDER), None)
    rest = [c for c in plain if c not in _GENDER]
    if len(rest) == 2 and rest[0] in _GROWN and rest[1] in _ROLES:
        role = _ROLES[rest[1]]
        return f"bald {_GROWN[rest[0]]}" if role == "bald" else f"{_GROWN[rest[0]]} {role}"
    words = " and ".join(_GROWN.get(c) or _name(c).lower() for c in rest)
    return f"{gender} {words.removeprefix('person ')}" if gender else words


# Titles of whole collections say nothing of the one picture.
_COLLECTIONS = re.compile(r"HASH\(|/|clip ?arts?\b|s[ui]bmission|etiquette|icons?\b|various|svg", re.IGNORECASE)


def stamp_caption(path: Path) -> str:
    """The English first line of a stamp's description, or its file name where that is a story."""
    description = path.with_suffix(".txt")
    name = re.sub(r"[\d_\W]+", " ", path.stem).strip().lower()
    if not description.is_file():
        return name
    line = description.read_text("utf-8", errors="replace").partition("\n")[0].strip()
    sentence = re.split(r"(?<=[a-z])[.!?]( |$)|[,;(:—–]| - ", line)[0]
    sentence = re.sub(r"^(this is |here is |it's )?(an?|the|some)\b ", "", sentence.strip(" .!?").lower())
    return sentence if 0 < len(sentence.split()) <= 7 else name


def openclipart_caption(path: Path, root: Path) -> str:
    """The picture's own title, or its file name less the author's, followed by its folder."""
    with open_picture(path) as picture:
        title, author = str(picture.info.get("Title", "")), str(picture.info.get("Author", ""))
    authors = {part[:4] for part in re.split(r"\W+", author.lower()) if len(part) > 2}
    if not title.strip() or len(title) > 40 or _COLLECTIONS.search(title):
        words = [w for w in re.split(r"[\W_\d]+", path.stem.lower()) if len(w) > 1 and w[:4] not in authors]
    else:
        words = [w for w in re.split(r"[\W_\d]+", title.lower()) if w]
    folder = re.sub(r"[_\W]+", " ", path.parent.name if path.parent != root else "")
    folder = re.sub(r"(?<=[^s])s$", "", folder)
    caption = " ".join(words[:6])
    if folder in {"unsorted", "", "people", "decoration"} or folder in caption:
        return caption or folder
    return f"{caption}, {folder}" if caption else folder
