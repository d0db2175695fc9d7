"""Secrets and personal data for the tests: 40 kinds, generated afresh from a seed, each in the sentence it comes in."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable

from stdnum import luhn
from stdnum.iso7064 import mod_97_10

_LETTERS = string.ascii_letters + string.digits
_HEX = "0123456789abcdef"


def _card(rng: random.Random, prefix: str, length: int) -> str:
    body = prefix + _some(rng, length - 1 - len(prefix), string.digits)
    return body + luhn.calc_check_digit(body)


def _iban(rng: random.Random) -> str:
    account = _some(rng, 18, string.digits)
    return f"DE{mod_97_10.calc_check_digits(account + 'DE')}{account}"


def _some(rng: random.Random, length: int, alphabet: str = _LETTERS) -> str:
    return "".join(rng.choice(alphabet) for _ in range(length))


def _password(rng: random.Random) -> str:
    return _some(rng, 5, string.ascii_letters) + _some(rng, 2, string.digits) + rng.choice("!#*_-") + _some(rng, 3)


# Kind, the value, and the sentence around it.
_KINDS: dict[str, tuple[Callable[[random.Random], str], str]] = {
    "email": (
        lambda r: f"{_some(r, 7, string.ascii_lowercase)}.{r.randrange(999)}@mail.example.org",
        "Write to {}, please.",
    ),
    "phone, international": (lambda r: f"+49 30 {_some(r, 7, '23456789')}", "Call {} after noon."),
    "phone, North America": (lambda r: f"({r.randint(201, 989)}) 555-{_some(r, 4, string.digits)}", "Our line is {} today."),
    "phone, France": (lambda r: "06 " + " ".join(_some(r, 2, "123456789") for _ in range(4)), "Appelez le {} demain."),
    "phone, bare": (lambda r: "5" + _some(r, 9, string.digits), "Her phone number is {}."),
    "card, Visa": (lambda r: _card(r, "4", 16), "Pay with {} now."),
    "card, Mastercard": (lambda r: _card(r, "53", 16), "Charge {} again."),
    "card, Amex": (lambda r: _card(r, "37", 15), "Amex {} was declined."),
    "iban": (_iban, "Refund to {} please."),
    "ipv4": (lambda r: f"203.{r.randint(1, 254)}.{r.randint(1, 254)}.{r.randint(1, 254)}", "Blocked {} at the door."),
    "ipv6": (lambda r: "2001:db8:" + ":".join(f"{r.randint(4096, 65535):x}" for _ in range(6)), "The host {} is down."),
    "mac": (lambda r: ":".join(_some(r, 2, _HEX) for _ in range(6)), "Device {} is offline."),
    "ssn": (lambda r: f"{r.randint(100, 665)}-{r.randint(10, 99)}-{r.randint(1000, 9999)}", "Taxpayer {} applied."),
    "OpenAI": (lambda r: "sk-proj-" + _some(r, 60), "I used {} there."),
    "Anthropic": (lambda r: "sk-ant-api03-" + _some(r, 80), "I used {} there."),
    "AWS id": (lambda r: "AKIA" + _some(r, 16, string.ascii_uppercase + "234567"), "The key id {} leaked."),
    "AWS secret": (lambda r: _some(r, 39) + "7", "aws_secret_access_key={} in the file."),
    "Google": (lambda r: "AIza" + _some(r, 35), "Maps uses {} here."),
    "Google OAuth": (lambda r: "GOCSPX-" + _some(r, 28), "Client {} works."),
    "Azure storage": (lambda r: _some(r, 84) + "a1==", "AccountName=x;AccountKey={};EndpointSuffix=y"),
    "Azure SAS": (lambda r: _some(r, 42) + "5", "https://x.blob.core.windows.net/c?sv=2022&sig={} expired."),
    "GitHub": (lambda r: "ghp_" + _some(r, 36), "Push with {} then."),
    "GitHub, fine-grained": (lambda r: f"github_pat_{_some(r, 22)}_{_some(r, 59)}", "Push with {} then."),
    "GitLab": (lambda r: "glpat-" + _some(r, 20), "Clone with {} then."),
    "Slack": (lambda r: f"xoxb-{_some(r, 12, string.digits)}-{_some(r, 24)}", "The bot has {} now."),
    "Slack webhook": (
        lambda r: f"hooks.slack.com/services/T{_some(r, 8)}/B{_some(r, 8)}/{_some(r, 24)}",
        "Post to https://{} now.",
    ),
    "Stripe": (lambda r: "sk_live_" + _some(r, 24), "Billing uses {} here."),
    "Hugging Face": (lambda r: "hf_" + _some(r, 34), "Download with {} then."),
    "npm": (lambda r: "npm_" + _some(r, 36), "Publish with {} then."),
    "PyPI": (lambda r: "pypi-AgEIcHlwaS5vcmc" + _some(r, 60), "Upload with {} then."),
    "SendGrid": (lambda r: f"SG.{_some(r, 22)}.{_some(r, 43)}", "Mail through {} then."),
    "Twilio": (lambda r: "SK" + _some(r, 32, _HEX), "Text through {} then."),
    "Telegram": (lambda r: f"{_some(r, 9, '123456789')}:AA{_some(r, 33)}", "The bot is {} there."),
    "Databricks": (lambda r: "dapi" + _some(r, 32, _HEX), "Query with {} then."),
    "JWT": (lambda r: f"eyJ{_some(r, 20)}.eyJ{_some(r, 40)}.{_some(r, 43)}", "Session {} ended."),
    "bearer": (lambda r: _some(r, 39) + "9", "Authorization: Bearer {} was sent."),
    "basic": (lambda r: base64.b64encode(f"user:{_some(r, 9)}".encode()).decode(), "Authorization: Basic {} was sent."),
    "private key": (
        lambda r: f"-----BEGIN RSA PRIVATE KEY-----\n{_some(r, 64)}\n{_some(r, 64)}\n-----END RSA PRIVATE KEY-----",
        "The file holds {} only.",
    ),
    "password in a URL": (_password, "postgres://app:{}@db.internal:5432/shop is the address"),
    "password, assigned": (_password, "password={} in the settings"),
    "password, said": (_password, "my password is {} these days"),
    "secret, hexadecimal": (lambda r: _some(r, 31, _HEX) + "7", "the secret: {} is old"),
    "api key, quoted": (lambda r: _some(r, 31) + "3", 'use api_key="{}" there'),
}


def generated(seed: int) -> dict[str, tuple[str, str]]:
    """For each kind the value and its sentence."""
    rng = random.Random(seed)
    return {
        kind: (value, sentence.replace("{}", value)) for kind, (make, sentence) in _KINDS.items() for value in [make(rng)]
    }
