#!/usr/bin/env python3
"""An instance of an ISP platform that shares no line with DotMac: plain HTTP and a hand-made HS256 token, with nothing
but Python's standard library. It validates its licence and exits without one; then it serves health, and reports its
configuration, metrics and health in the rhythm of the field.

Below /api/isp/v1 it can be driven by whoever reaches it: a subscriber count, an event, and any call with any token.
"""

import base64
import hashlib
import hmac
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REFUSED = 2
BODY_BYTES_MAX = 2 * 1024 * 1024
PATIENCE_S = 10


def say(line):
    print(f"foreign-isp: {line}", flush=True)


def required(name):
    value = os.environ.get(name, "")
    if not value:
        say(f"{name} is missing")
        sys.exit(REFUSED)
    return value


def segment(content):
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def token(secret, claims, header=None):
    """A JSON Web Token by hand: header, claims and their HMAC, each in base64url."""
    header = header or {"alg": "HS256", "typ": "JWT"}
    parts = [segment(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)]
    message = ".".join(parts)
    if header.get("alg") == "none":
        return message + "."
    digest = hmac.new(secret.encode(), message.encode(), hashlib.sha256).digest()
    return f"{message}.{segment(digest)}"


class Platform:
    """The calls of an instance, each with a fresh token."""

    def __init__(self):
        self.url = required("PLATFORM_URL").rstrip("/")
        self.tenant = required("TENANT_ID")
        self.license_key = required("ISP_LICENSE_KEY")
        self.secret = required("PLATFORM_SERVICE_TOKEN")
        self.version = os.environ.get("APP_VERSION", "0")
        # A proxy has no business between an instance and its agent.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def claims(self):
        now = int(time.time())
        return {
            "sub": f"isp-{self.tenant}",
            "type": "service",
            "service_type": "isp",
            "tenant_id": self.tenant,
            "permissions": ["license:validate", "config:read", "metrics:write", "events:write"],
            "iat": now,
            "exp": now + 3600,
            "jti": str(uuid.uuid4()),
        }

    def call(self, method, path, body=None, headers=None, bearer=None):
        """Status and answer; a refusal is an answer, too."""
        bearer = token(self.secret, self.claims()) if bearer is None else bearer
        base = "" if path.startswith("/api/") else "/api/platform/v1/service-api"
        request = urllib.request.Request(
            f"{self.url}{base}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {bearer}",
                "Content-Type": "application/json",
                "X-ISP-Version": self.version,
                "X-Tenant-ID": self.tenant,
                **(headers or {}),
            },
        )
        try:
            with self.opener.open(request, timeout=PATIENCE_S) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            status, content = refusal.code, refusal.read()
        return status, json.loads(content) if content else None


class Instance:
    """What the program knows of itself."""

    def __init__(self, platform):
        self.platform = platform
        self.activation = None
        self.config_version = None
        self.subscribers = 0
        self.is_ready = True

    def validate(self):
        """Licensed, or not running at all."""
        body = {
            "license_key": self.platform.license_key,
            "isp_instance_id": f"isp-{self.platform.tenant}-{os.getpid()}",
            "version": self.platform.version,
        }
        try:
            status, answer = self.platform.call("POST", "/license/validate", body)
        except OSError as error:
            say(f"the platform cannot be reached: {error}")
            sys.exit(REFUSED)
        if status != 200 or not answer["valid"]:
            say(f"no license: {status} {answer}")
            sys.exit(REFUSED)
        self.activation = answer["activation_token"]
        say(f"licensed for {answer['license_info']['tenant_name']}: {answer['message']}")

    def sync(self):
        body = {"current_version": self.config_version}
        answer = self.expect(*self.platform.call("POST", f"/config/{self.platform.tenant}/sync", body))
        if answer["needs_update"]:
            self.config_version = answer["config"]["config_version"]
            say(f"configuration {self.config_version} is in force")

    def report_metrics(self):
        counted = {name: 0 for name in (
            "new_subscribers_today", "churned_subscribers_today", "active_sessions", "sessions_today",
            "total_data_usage_mb", "active_nas_devices", "active_olts", "active_onts")}
        counted |= {
            "tenant_id": self.platform.tenant,
            "reported_at": now(),
            "active_subscribers": self.subscribers,
            "total_subscribers": self.subscribers,
        }
        return self.expect(*self.platform.call("POST", "/metrics/report", {"metrics": counted}))

    def report_health(self):
        """Constantly healthy: that is how instances of the field are."""
        parts = ("status", "api_status", "radius_status", "database_status", "redis_status")
        shares = ("cpu_usage_percent", "memory_usage_percent", "disk_usage_percent")
        claim = {name: "healthy" for name in parts} | {name: 0.0 for name in shares} | {
            "tenant_id": self.platform.tenant,
            "reported_at": now(),
            "app_version": self.platform.version,
            "config_version": self.config_version,
        }
        self.expect(*self.platform.call("POST", "/license/heartbeat", {"activation_token": self.activation}))
        return self.expect(*self.platform.call("POST", "/metrics/health", claim))

    def event(self, event_type, event_id=None, payload=None):
        return {
            "event_id": event_id or str(uuid.uuid4()),
            "event_type": event_type,
            "tenant_id": self.platform.tenant,
            "occurred_at": now(),
            "payload": payload or {},
        }

    @staticmethod
    def expect(status, answer):
        if status != 200:
            raise ValueError(f"{status} {answer}")
        return answer

    def keep(self, what, period_s, act):
        """Does something at once and then again and again; what fails is said and tolerated."""
        while True:
            try:
                act()
            except (OSError, ValueError, KeyError) as error:
                say(f"{what} failed, going on without: {error}")
            time.sleep(period_s)


def now():
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Pages(BaseHTTPRequestHandler):
    """Health for the platform's probes, and the instance's own API."""

    instance = None
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        instance = self.instance
        whole = {"service": "isp", "version": instance.platform.version}
        pages = {
            "/health": {"status": "healthy", **whole, "pid": os.getpid()},
            "/health/live": {"status": "alive", **whole},
            # 200 even when it is not ready: `healthy` is what counts.
            "/health/ready": {
                "status": "ready" if instance.is_ready else "not ready",
                "healthy": instance.is_ready,
                "services": [{"name": "web", "status": "healthy", "message": "", "required": True}],
            },
        }
        page = pages.get(self.path)
        self.answer(200 if page else 404, page or {"error": "not found"})

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(413, {"error": "too large"})
        body = json.loads(self.rfile.read(length) or b"{}")
        acts = {
            "/api/isp/v1/ready": self.set_ready,
            "/api/isp/v1/subscribers": self.set_subscribers,
            "/api/isp/v1/call": self.call,
        }
        act = acts.get(self.path)
        if not act:
            return self.answer(404, {"error": "not found"})
        try:
            self.answer(200, act(body))
        except (OSError, ValueError, KeyError) as error:
            self.answer(502, {"error": str(error)})

    def set_ready(self, body):
        self.instance.is_ready = bool(body["ready"])
        return {"ready": self.instance.is_ready}

    def set_subscribers(self, body):
        self.instance.subscribers = int(body["active"])
        return self.instance.report_metrics()

    def call(self, body):
        """Any call with any token: its claims over the right ones (null leaves one out), its header, its secret."""
        platform = self.instance.platform
        claims = platform.claims() | body.get("claims", {})
        claims = {name: value for name, value in claims.items() if value is not None}
        bearer = body.get("bearer")
        if bearer is None:
            bearer = token(body.get("secret", platform.secret), claims, body.get("header"))
        path = body["path"].replace("{license_key}", platform.license_key)
        status, answer = platform.call(
            body.get("method", "POST"), path, body.get("body"), body.get("headers"), bearer)
        return {"status": status, "answer": answer, "bearer": bearer}

    def answer(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Probes come every moment: nobody wants to read of them."""


def main():
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: sys.exit(0))
    instance = Instance(Platform())
    instance.validate()
    Pages.instance = instance
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Pages)
    server.daemon_threads = True
    seconds = lambda name, usual: float(os.environ.get(name, usual))
    for what, period_s, act in (
        ("configuration", seconds("CONFIG_SECONDS", 300), instance.sync),
        ("metrics", seconds("METRICS_SECONDS", 60), instance.report_metrics),
        ("health", seconds("HEALTH_SECONDS", 30), instance.report_health),
    ):
        threading.Thread(target=instance.keep, args=(what, period_s, act), daemon=True).start()
    say(f"serving {server.server_address}")
    server.serve_forever()


if __name__ == "__main__":
    main()
