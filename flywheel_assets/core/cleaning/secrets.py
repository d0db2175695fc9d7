"""Secrets in text: keys and tokens by the form their issuer gave them, and what follows a word such as `password`.

What belongs here: detectors of credentials, as one idea a function. What does not: personal data (`personal`), and which
finding wins where two overlap (`detect`).

Every expression is linear in the length of the text (possessive or bounded repetition, no nested one): the text comes
from strangers, and one record must not be able to stop a run.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import Counter
from collections.abc import Iterator

from flywheel_assets.core.cleaning.found import Found
from flywheel_assets.core.cleaning.policy import Entity

# Keys that carry their issuer's mark. (?a) everywhere: no key holds a letter outside ASCII, and none is cut at one.
_MARKED = (
    r"sk-(?:ant-|proj-|svcacct-|admin-|or-v1-|lf-|None-)?[\w-]{20,}+",  # OpenAI, Anthropic, OpenRouter, Langfuse, DeepSeek
    r"pk-lf-[\w-]{20,}+",  # Langfuse
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}+",  # Stripe
    r"whsec_[A-Za-z0-9+/=]{24,}+",  # Stripe webhooks
    r"(?:AKIA|ASIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])",  # AWS
    r"AIza[\w-]{35}",  # Google
    r"GOCSPX-[\w-]{20,}+",  # Google OAuth
    r"ya29\.[\w-]{20,}+",  # Google OAuth
    r"1//0[\w-]{20,}+",  # Google refresh tokens
    r"gh[pousr]_[A-Za-z0-9]{30,}+",  # GitHub
    r"github_pat_\w{22,}+",  # GitHub
    r"gl(?:pat|dt|ptt|rt|cbt|soat|ft|imt|agent)-[\w.-]{20,}+",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}+",  # Slack
    r"xapp-\d-[A-Za-z0-9-]{10,}+",  # Slack
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[\w/-]{20,}+",  # Slack
    r"discord(?:app)?\.com/api/webhooks/\d+/[\w-]{30,}+",  # Discord
    r"[MNO][A-Za-z\d]{23,27}\.[\w-]{6}\.[\w-]{27,}+",  # Discord bots
    r"hf_[A-Za-z0-9]{30,}+",  # Hugging Face
    r"npm_[A-Za-z0-9]{30,}+",  # npm
    r"pypi-[\w-]{16,}+",  # PyPI
    r"SG\.[\w-]{16,32}\.[\w-]{16,64}",  # SendGrid
    r"(?:AC|SK)[0-9a-f]{32}(?![0-9A-Za-z])",  # Twilio
    r"key-[0-9a-f]{32}(?![0-9A-Za-z])",  # Mailgun
    r"[0-9a-f]{32}-us\d{1,2}(?!\d)",  # Mailchimp
    r"xkeysib-[0-9a-f]{64}-[A-Za-z0-9]{16}",  # Brevo
    r"do[opr]_v1_[0-9a-f]{32,}+",  # DigitalOcean
    r"shp(?:at|ca|pa|ss|tka)_[0-9a-fA-F]{32}",  # Shopify
    r"(?:EAAA|sq0atp-|sq0csp-)[\w-]{22,}+",  # Square
    r"EAA[A-Za-z0-9]{60,}+",  # Facebook
    r"dapi[0-9a-f]{32}(?:-\d)?",  # Databricks
    r"lin_(?:api|oauth)_[A-Za-z0-9]{32,}+",  # Linear
    r"ntn_[A-Za-z0-9]{40,}+",  # Notion
    r"fig[dou][hr]?_[\w-]{36,}+",  # Figma
    r"dckr_(?:pat|oat)_[\w-]{20,}+",  # Docker
    r"dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{40,}+",  # Doppler
    r"gl(?:sa|c)_[\w=+/-]{32,}+",  # Grafana
    r"NRAK-[A-Z0-9]{27}",  # New Relic
    r"hv[sbr]\.[\w-]{24,}+",  # Vault
    r"[A-Za-z0-9]{14}\.atlasv1\.[\w-]{60,}+",  # Terraform
    r"ATATT3[\w=-]{50,}+",  # Atlassian
    r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}",  # Postman
    r"rubygems_[0-9a-f]{48}",  # RubyGems
    r"sntr[yu]s_[\w+/=-]{40,}+",  # Sentry
    r"HRKU-[\w-]{36,}+",  # Heroku
    r"pscale_(?:tkn|pw|oauth)_[\w=.-]{32,}+",  # PlanetScale
    r"sbp_[0-9a-f]{40}",  # Supabase
    r"vercel_[\w]{24,}+",  # Vercel
    r"gsk_[A-Za-z0-9]{40,}+",  # Groq
    r"xai-[A-Za-z0-9]{40,}+",  # xAI
    r"pplx-[A-Za-z0-9]{32,}+",  # Perplexity
    r"r8_[A-Za-z0-9]{32,}+",  # Replicate
    r"nvapi-[\w-]{40,}+",  # NVIDIA
    r"tgp_v1_[\w-]{30,}+",  # Together
    r"wandb_v1_[\w-]{30,}+",  # Weights & Biases
    r"AGE-SECRET-KEY-1[A-Z0-9]{58}",  # age
    r"\d{8,10}:A[A-Za-z0-9_-]{34}(?![\w-])",  # Telegram bots
    r"[A-Za-z0-9_~.]{3}\dQ~[\w.~-]{31,34}",  # Azure client secrets
)
# In text that quotes JSON or code, the letter before a key may be the end of an escaped line break.
_START = r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrt]))"
_API_KEY = re.compile(rf"(?a){_START}(?:" + "|".join(_MARKED) + ")")
# What every one of the forms above holds: looked for first, because the long expression is tried at every character.
API_KEY_HINT = (
    r"sk-|k_(?:live|test)_|k-lf-|whsec_|A[KSGIRNBC][IPDORVNC]A[A-Z2-7]|AIza|GOCSPX|ya29|1//0|gh[pousr]_|hub_pat_|gl[a-z]{2,5}-"
    r"|xox|xapp|hooks|[MNO][A-Za-z\d]{23}|hf_|npm_|pypi-|SG\.|(?:AC|SK)[0-9a-f]{8}|key-|-us\d|xkeysib|_v1_|shp[a-z]+_|EAA"
    r"|sq0|dapi|lin_|ntn_|fig[dou]|dckr|dp\.|glsa_|glc_|NRAK|hv[sbr]\.|atlasv1|ATATT|PMAK|rubygems_|sntr|HRKU|pscale_|sbp_"
    r"|vercel_|gsk_|xai-|pplx-|r8_|nvapi-|AGE-S|\d:A|\dQ~|webhooks"
)

_JWT = re.compile(rf"(?a){_START}eyJ[\w-]{{8,}}+\.[\w-]{{8,}}+(?:\.[\w-]*+){{0,3}}")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN ([A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END \1-----|\Z)|PuTTY-User-Key-File-\d:.*?"
    r"(?:Private-MAC: ?[0-9a-f]+|\Z)",
    re.DOTALL,
)
# user:password@ of a URL or connection string; what stands before it stays.
_IN_URL = re.compile(r"://[^\s:/?#@\"'<>\\]{0,128}:([^\s/?#\"'<>\\]{1,256})@")
_HEADER = re.compile(
    r"(?a)\b(bearer|basic|authorization\W{1,4}(?:token|apikey|key|digest))\s{1,3}([\w.~+/-]{8,}+=*)", re.IGNORECASE
)
_SAS = re.compile(r"[?&;](?:sig|X-Amz-Signature|X-Goog-Signature)=([A-Za-z0-9%+/=]{20,}+)", re.IGNORECASE)
# 40 characters of base64 are a secret key only beside an access key id, or after a word that says so.
_AWS_SECRET = re.compile(r"(?<![A-Za-z0-9/+=_-])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=_-])")
_AWS_WORDS = re.compile(r"(?:AKIA|ASIA)[A-Z2-7]{16}|aws", re.IGNORECASE)

_PASSWORD_WORDS = r"pass(?:word|wd|phrase|code)|passwort|contrase(?:ñ|n)a|mot de passe|pwd"
_SECRET_WORDS = (
    r"secret(?:[ _-]?(?:access[ _-]?)?key)?|api[ _-]?(?:key|token|secret)"
    r"|(?:access|auth|refresh|bearer|session|bot|id)[ _-]?token|token|client[ _-]?secret|credentials?|authorization|cookie"
    r"|(?:access|account|private|encryption|signing|license|shared[ _-]?access|subscription|master)[ _-]?key"
)
ASSIGNMENT_HINT = r"(?i:pass|pwd|contrase|secret|api.?key|token|[a-z].?key|credential|authorization|cookie)"
# The value ends at a blank, a quote, or what closes a call or a query parameter.
_ASSIGNED = re.compile(
    rf"(?i)({_PASSWORD_WORDS})|(?:{_SECRET_WORDS})",
)
_OPERATOR = re.compile(
    r"""(?:[A-Z_\d-][\w-]{0,24}?|s)?(?:\\?["'`*]){0,3}\s{0,3}(:=|=>|={1,2}|:|\bis\b(?:\s+now)?)\s{0,3}"""
    r"""((?:\\?["'`*]){0,3})"""
)
_VALUE = re.compile(r"""[^\s"'`<>,;&\\]{4,512}""")
_QUOTED = {quote: re.compile(rf"[^\s{quote}\\]{{4,512}}(?=\\?{re.escape(quote)})") for quote in "\"'`*"}
# What stands there instead of a value, or begins a sentence about it.
_NO_VALUES = frozenset(
    [
        *("none", "null", "nil", "true", "false", "undefined", "unknown", "missing", "empty", "hidden", "redacted"),
        *("required", "optional", "string", "text", "integer", "number", "boolean", "object", "array"),
        *("changed", "reset", "removed", "invalid", "valid", "wrong", "expired", "forgotten", "incorrect", "correct"),
        *("here", "basic", "bearer", "digest", "must", "should", "your", "the", "this", "that", "not"),
    ]
)

_KEYS_OF_PASSWORDS = re.compile(
    r"\w*(?:password|passwd|passphrase|passcode)\d?|(?:\w+_)?pwd|pass|(?:user|db|root|admin|smtp|ftp|ssh)_?pass"
)
_KEYS_OF_SECRETS = re.compile(
    r"(?:\w+_)?(?:secret|credentials?|authorization|(?:set_)?cookie|token|(?:access|auth|refresh|bearer|api|id|session|bot)token"
    r"|(?:api|access|secret|private|account|encryption|signing|master|auth|subscription)_?key)(?:_value)?"
)
_KEYS_OF_PLACES = re.compile(r"\w*(?:page|next|continuation|cursor|sync)_?\w*token\w*")


def marked_keys(text: str) -> Iterator[Found]:
    """API keys and tokens whose issuer marks them."""
    for match in _API_KEY.finditer(text):
        yield Found(match.start(), match.end(), Entity.API_KEY, match[0])
    if _AWS_WORDS.search(text):
        for match in _AWS_SECRET.finditer(text):
            if _character_classes(match[0]) >= 3:
                yield Found(match.start(), match.end(), Entity.SECRET, match[0])


def json_web_tokens(text: str) -> Iterator[Found]:
    """JSON web tokens, signed or encrypted."""
    for match in _JWT.finditer(text):
        yield Found(match.start(), match.end(), Entity.JWT, match[0])


def private_keys(text: str) -> Iterator[Found]:
    """Private key blocks; one that was cut off counts to the end of the text."""
    for match in _PRIVATE_KEY.finditer(text):
        yield Found(match.start(), match.end(), Entity.PRIVATE_KEY, match[0])


def in_urls(text: str) -> Iterator[Found]:
    """Passwords in URLs and connection strings, and signatures of signed URLs."""
    for match in _IN_URL.finditer(text):
        yield Found(match.start(1), match.end(1), Entity.PASSWORD, match[1])
    for match in _SAS.finditer(text):
        yield Found(match.start(1), match.end(1), Entity.SECRET, match[1])


def in_headers(text: str) -> Iterator[Found]:
    """Bearer tokens and basic credentials, with or without the name of the header."""
    for match in _HEADER.finditer(text):
        value = match[2].rstrip(".")
        found = _is_basic(value) if match[1].lower() == "basic" else _looks_random(value)
        if found:
            yield Found(match.start(2), match.start(2) + len(value), Entity.TOKEN, value)


def assigned(text: str) -> Iterator[Found]:
    """What follows `password=`, `"api_key": "`, `the token is` and the like."""
    at = 0
    while word := _ASSIGNED.search(text, at):
        at = word.end()
        operator = _OPERATOR.match(text, at)
        if operator is None or not (value := _VALUE.match(text, operator.end())):
            continue
        is_password = word[1] is not None
        quote = operator[2][-1:]
        if quote and (inside := _QUOTED[quote].match(text, operator.end())):
            value = inside
        kept = value[0] if quote else value[0].rstrip(".?)]}:" if is_password else ".!?)]}:")
        quoted, said = bool(quote), operator[1].lower().startswith("is")
        if _is_password(kept, quoted, operator[1], said) if is_password else _is_secret(kept):
            at = value.start() + len(kept)
            yield Found(value.start(), at, Entity.PASSWORD if is_password else Entity.SECRET, kept)


def secret_of_key(name: str) -> Entity | None:
    """What a field of this name (in snake case) holds: a password, a secret, or nothing that the name tells."""
    if _KEYS_OF_PASSWORDS.fullmatch(name):
        return Entity.PASSWORD
    # A token that says where a listing goes on opens no door.
    return Entity.SECRET if _KEYS_OF_SECRETS.fullmatch(name) and not _KEYS_OF_PLACES.fullmatch(name) else None


def is_secret_value(entity: Entity, value: str) -> bool:
    """Whether the value of such a field is one: not empty, not a sentence, not a word that stands for having none."""
    if not 4 <= len(value) <= 4096 or any(character.isspace() for character in value):
        return False
    return value.lower() not in _NO_VALUES and (entity is Entity.PASSWORD or _is_secret(value))


def _is_password(value: str, quoted: bool, operator: str, said: bool) -> bool:
    if len(value) < 4 or value.lower() in _NO_VALUES or _is_code(value):
        return False
    if said:
        return len(value) >= 5 and _character_classes(value) >= 2 and any(c.isdigit() for c in value)
    # `password: see below` is prose; `password=swordfish` and `password: "swordfish"` are not.
    return quoted or "=" in operator or _character_classes(value) >= 2


def _is_secret(value: str) -> bool:
    return len(value) >= 8 and not _is_code(value) and _looks_random(value)


def _is_code(value: str) -> bool:
    """A variable, a call or a template instead of a value."""
    return value[0] in "${%([" or "(" in value or value.startswith(("os.", "process.", "env.", "self.", "settings.", "http"))


def _looks_random(value: str) -> bool:
    """Letters and digits mixed, with more than 2.5 bits a character: no word, no number, no name of a thing."""
    if not any(c.isdigit() for c in value) or not any(c.isalpha() for c in value):
        # Long base64 without a digit is rare, and still no word where cases alternate.
        return len(value) >= 20 and _character_classes(value) >= 2 and _entropy(value) > 3.5 and not value.isdigit()
    return len(value) >= 8 and _entropy(value) > 2.5


def _character_classes(value: str) -> int:
    return sum(
        [
            any(c.islower() for c in value),
            any(c.isupper() for c in value),
            any(c.isdigit() for c in value),
            any(not c.isalnum() for c in value),
        ]
    )


def _entropy(value: str) -> float:
    """Shannon entropy, bits a character."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


def _is_basic(value: str) -> bool:
    try:
        return b":" in base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
