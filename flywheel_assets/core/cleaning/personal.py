"""Personal data in text: addresses and numbers whose form, and mostly whose check digits, tell what they are.

What belongs here: detectors of personal data, as one idea a function; check digits and numbering plans come from
python-stdnum and phonenumbers. What does not: names and postal addresses, which have no form (docs/cleaning.md says so),
and secrets (`secrets`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from functools import lru_cache

import phonenumbers
from stdnum import iban, luhn

from flywheel_assets.core.cleaning.found import Found, digits_of
from flywheel_assets.core.cleaning.policy import Entity

_EMAIL = re.compile(
    r"(?<![\w.+%-])((?:[\w.+-]|%(?!40)|(?<=\w)'(?=\w)){1,64})(?:@|%40)"
    r"((?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?:xn--[a-z0-9-]{2,50}|[^\W\d_]{2,24}))(?![\w@])"
)
_NO_PERSON = frozenset({"git", "svn", "hg"})

_CARD = re.compile(
    r"(?<![\w.-])"
    r"(?:\d{13,19}|\d{4}([ \u00a0.-])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{4}([ \u00a0.-])\d{6}\2\d{4,5})(?![\w-]|\.\d)"
)
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720))\d{12,14}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11,13}|(?:6011|64[4-9]\d|65\d\d|62\d\d|81\d\d)\d{12,15}|35(?:2[89]|[3-8]\d)\d{12}"
    r"|(?:50|5[678]|6[0-9])\d{11,17}"
)
_CARD_LENGTHS = frozenset({13, 14, 15, 16, 19})

# Greedy: what follows an IBAN may be swallowed, and is given back word by word.
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])")
_SSN = re.compile(r"(?<![\w.-])(?!000|666)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-]|\.\d)")
_SSN_WORDS = re.compile(r"(?i)\bssn\b|social security|\bitin\b|tax ?payer")
_BARE_SSN = re.compile(r"(?i)(?:\bssn\b|social security(?: (?:number|no\.?))?)[^\d\w]{0,3}(?:is |: )?\s?(\d{9})(?!\d)")

_INTERNATIONAL = re.compile(r"(?<![\w+.])(?:\+|00)[1-9](?:[ ./()-]{0,2}\d){6,14}(?![\w-]|\.\d)")
_NORTH_AMERICAN = re.compile(r"(?<![\w.+/-])(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}([ .-]))\d{3}[ .-]\d{4}(?![\w-]|\.\d)")
_TRUNK_ZERO = re.compile(r"(?<![\w.,+/:-])(?:\(0\d{1,5}\)|0\d{1,5})(?:[ ./-]{1,3}\d{2,8}){1,5}(?![\w/:-]|[.,]\d)")
_AFTER_A_WORD = re.compile(
    r"(?i)\b(?:phone|telephone|tel|mobile|cell|fax|whatsapp|call|text|dial|sms|handy|telefon|rufnummer|móvil|portable)"
    r"\.?(?: ?(?:number|no\.?|nr\.?|me|us|him|her|them)){0,2}(?: is| at| on| under)?[ :=#]{1,3}"
    r"(\(?\d(?:[ ./()-]{0,2}\d){6,13})(?![\w-]|\.\d)"
)
_PHONE_FIELD = re.compile(r"[+\d][\d ()./x-]{5,24}")
_KEYS_OF_PHONES = re.compile(
    r"(?:\w+_)?(?:cell|mobile|home|work|tele)?(?:phone|tel|mobile|cell|fax|whatsapp|msisdn)s?(?:_?(?:number|no|nr|num)s?)?\d?"
)
_KEYS_OF_SSNS = re.compile(r"(?:\w+_)?(?:ssn|social_?security(?:_?(?:number|no|num))?|itin)")
_DATE = re.compile(r"\d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d{2})(?!\d)|\d{4}([./-])\d{1,2}\2\d{1,2}(?!\d)")
# Where people write a national number with a leading zero; the plan of any of them must know the number.
_REGIONS = ("GB", "DE", "FR", "IT", "NL", "BE", "CH", "AT", "SE", "FI", "IE", "AU", "NZ", "JP", "KR", "IN", "ZA", "TR", "IL")

_IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_VERSION_BEFORE = re.compile(r"(?i)(?:\bv|version|release|build|firmware|driver)[ :=]{0,3}$|[a-z]/$")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9a-fA-F:]*:[0-9a-fA-F:]*:)[0-9a-fA-F:]{3,39}(?:(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])")
_MAC = re.compile(r"(?<![\w:.-])[0-9a-fA-F]{2}([:-])(?:[0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}(?![\w:-])")


def emails(text: str) -> Iterator[Found]:
    """E-mail addresses, international ones included."""
    for match in _EMAIL.finditer(text):
        if match[1].lower() not in _NO_PERSON:
            yield Found(match.start(), match.end(), Entity.EMAIL, f"{match[1]}@{match[2]}".casefold())


def cards(text: str) -> Iterator[Found]:
    """Payment card numbers: an issuer's prefix, a length it uses, and the Luhn digit."""
    for match in _CARD.finditer(text):
        if is_card(digits := digits_of(match[0])):
            yield Found(match.start(), match.end(), Entity.CARD, digits)


def is_card(digits: str) -> bool:
    """Whether these digits are a payment card's."""
    return len(digits) in _CARD_LENGTHS and _ISSUERS.fullmatch(digits) is not None and luhn.is_valid(digits)


def ibans(text: str) -> Iterator[Found]:
    """IBANs, in groups or not: length and form of the country, and the check digits."""
    for match in _IBAN.finditer(text):
        for candidate in _word_by_word_less(match[0]):
            compact = candidate.replace(" ", "").replace("-", "").upper()
            if iban.is_valid(compact, check_country=False):
                yield Found(match.start(), match.start() + len(candidate), Entity.IBAN, compact)
                break


def social_security_numbers(text: str) -> Iterator[Found]:
    """US social security and taxpayer numbers: 3-2-4 digits with hyphens, or with blanks or nothing after a word for it."""
    for match in _SSN.finditer(text):
        if match[1] == "-" or _SSN_WORDS.search(text):
            yield Found(match.start(), match.end(), Entity.SSN, digits_of(match[0]))
    for match in _BARE_SSN.finditer(text):
        yield Found(match.start(1), match.end(1), Entity.SSN, match[1])


def phones(text: str) -> Iterator[Found]:
    """Phone numbers: international ones, national ones with separators, and bare ones after a word such as `call`."""
    for match in _INTERNATIONAL.finditer(text):
        for candidate in _word_by_word_less(match[0]):
            if _is_international(digits_of(candidate)):
                yield _phone(match.start(), candidate)
                break
    for match in _NORTH_AMERICAN.finditer(text):
        yield _phone(match.start(), match[0])
    for match in _TRUNK_ZERO.finditer(text):
        if not _DATE.match(match[0]) and _is_national(digits_of(match[0])):
            yield _phone(match.start(), match[0])
    for match in _AFTER_A_WORD.finditer(text):
        if not _DATE.match(match[1]):
            yield _phone(match.start(1), match[1])


def number_of_key(name: str, value: str) -> Entity | None:
    """What a field of this name (in snake case) holds with this value: a phone or social security number, or neither."""
    if _KEYS_OF_PHONES.fullmatch(name) and _PHONE_FIELD.fullmatch(value) and 7 <= len(digits_of(value)) <= 15:
        return Entity.PHONE
    if _KEYS_OF_SSNS.fullmatch(name) and len(digits_of(value)) == 9:
        return Entity.SSN
    return None


def network_addresses(text: str) -> Iterator[Found]:
    """IPv4, IPv6 and MAC addresses; loopback and unspecified addresses are nobody's and stay."""
    for match in _MAC.finditer(text):
        yield Found(match.start(), match.end(), Entity.MAC, match[0].lower().replace("-", ":"))
    for match in _IPV4.finditer(text):
        if not _VERSION_BEFORE.search(text, max(0, match.start() - 12), match.start()):
            yield from _address(match)
    for match in _IPV6.finditer(text):
        if any(c.isdigit() for c in match[0]):
            yield from _address(match)


def _address(match: re.Match[str]) -> Iterator[Found]:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return
    if not (address.is_loopback or address.is_unspecified or str(address) == "255.255.255.255"):
        yield Found(match.start(), match.end(), Entity.IP, str(address))


def _phone(start: int, written: str) -> Found:
    digits = digits_of(written)
    return Found(start, start + len(written), Entity.PHONE, digits.removeprefix("00"))


def _word_by_word_less(text: str) -> Iterator[str]:
    """A text, then the same without its last word, and so on: expressions that allow blanks swallow what follows."""
    yield text
    while (end := max(text.rfind(" "), text.rfind("-"))) > 0:
        text = text[:end].rstrip(" ./(-")
        yield text


@lru_cache(maxsize=4096)
def _is_international(digits: str) -> bool:
    """Whether a number with its country code (after `+` or `00`) has a length its country uses."""
    try:
        number = phonenumbers.parse("+" + digits.removeprefix("00"))
    except phonenumbers.NumberParseException:
        return False
    # Numbers kept for films and examples are possible without being valid, and are somebody's invention of a number.
    return phonenumbers.is_valid_number(number) if digits.startswith("00") else phonenumbers.is_possible_number(number)


@lru_cache(maxsize=4096)
def _is_national(digits: str) -> bool:
    """Whether some country's numbering plan knows this number with its leading zero."""
    if not 9 <= len(digits) <= 12:
        return False
    return any(phonenumbers.is_valid_number(phonenumbers.parse(digits, region)) for region in _REGIONS)
