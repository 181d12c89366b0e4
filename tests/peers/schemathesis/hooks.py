"""What JSON Schema cannot say about the API, and what the contract therefore answers to requests that fit the schema.

Nothing is left out of the run and no check is switched off: a failure is dropped only when the answer itself, by its code,
its field and the rule that it names, is the one that the contract demands. The end of the run counts them.
"""

import atexit
import collections
import sys
import uuid

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree

# Fields that are judged by what there is, not by what they look like: no resource requested above its limit, copies within the tier
# and within each other's bounds, a region that takes deployments.
JUDGED_BY_STATE = {"replicas", "min_replicas", "max_replicas", "region"}
# What a card may say depends on the controllers that are and were, and on what its bytes hold; a trust root is signed offline.
RULES_OF_CONTROLLERS = {
    "controllers.admit": {"node", "incarnation", "signing_key", "issuer", "link_address", "api_address"},
    "trust_roots.follow": {"document"},
}
# Rules of a manifest about names that its parts have for each other, and about bytes where a schema counts characters.
RULES_OF_MANIFESTS = (
    "names of components",
    "port.NAME or volume.NAME of this component",
    "a port of this component",
    "an order without a circle",
    "at most 4096 bytes",
    "at most 500 bytes",
)
# A deleted deployment is shown until it is gone for good, and for 30 days after that; a revoked token or agent stays.
TOMBSTONES = {"destroying", "destroyed", "revoked"}
# Characters of an Idempotency-Key at most.
KEY_MAX = 128

dropped = collections.Counter()


@schemathesis.hook
def before_call(context, case, kwargs) -> None:
    """Gives each request a key of its own, and lets none of them last for ever.

    One key for two requests is an error of the caller. Output that is followed has no end, and here answers are read whole.
    """
    query = case.query or {}
    if str(query.get("follow")).lower() == "true":
        query["follow"] = "false"
    key = (case.headers or {}).get("Idempotency-Key")
    is_sound = key and 0 < len(key) <= KEY_MAX and key.isascii() and key.isprintable() and key == key.strip()
    if is_sound:
        unique = uuid.uuid4().hex
        case.headers["Idempotency-Key"] = key[: KEY_MAX - len(unique)].strip() + unique


@schemathesis.hook
def filter_failure(context, failure: Failure, case, response) -> bool:
    """Whether a failure is one."""
    answer = as_object(response)
    demanded = None
    if isinstance(failure, RejectedPositiveData):
        demanded = demanded_rejection(case, response.status_code, answer)
    elif isinstance(failure, UseAfterFree) and answer.get("status") in TOMBSTONES:
        demanded = f"shown as {answer['status']}"
    if demanded:
        dropped[f"{case.operation.definition.raw['operationId']}: {demanded}"] += 1
    return demanded is None


def demanded_rejection(case, status: int, answer: dict) -> str | None:
    """Which answer to a request that fits its schema the contract demands here, if it does."""
    code, errors = answer.get("code"), answer.get("errors", [])
    sent = {name.lower(): value for name, value in (case.headers or {}).items()}
    if status == 412 and code == "precondition-failed" and "if-match" in sent:
        # The version is an old one, or that of another thing.
        return code
    if status != 422 or code != "invalid" or not errors:
        return None
    if all(is_demanded_error(case, sent, error) for error in errors):
        return ", ".join(sorted({error["field"].split(".")[0] for error in errors}))
    return None


def is_demanded_error(case, sent: dict, error: dict) -> bool:
    """Whether a field may be refused although it fits its schema."""
    if error["field"] == "If-Match":
        # Systematic cases cannot hold the quotes of an entity tag: they send an empty header as if it fitted.
        return sent.get("if-match") == ""
    operation = case.operation.definition.raw["operationId"]
    if operation == "releases.add":
        return error["allowed"].startswith(RULES_OF_MANIFESTS)
    if operation in RULES_OF_CONTROLLERS:
        return error["field"] in RULES_OF_CONTROLLERS[operation]
    if error["field"].startswith("resources."):
        return "cpu_limit" in error["allowed"] or "memory_limit" in error["allowed"]
    return error["field"] in JUDGED_BY_STATE


def as_object(response) -> dict:
    """The answer as an object; an empty one if it is none."""
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


@atexit.register
def tell() -> None:
    """Says which answers were taken as the contract's own."""
    for what, count in sorted(dropped.items()):
        print(f"fuzz-api: {count} x {what}, as the contract demands", file=sys.stderr)
