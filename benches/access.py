"""How a kubeconfig leads to its server: read from a file, written for others, and requests to it over
whatever socket leads there. Only what Python itself has; YAML is read by whoever is here and can."""

import base64
import binascii
import http.client
import json
import os
import queue
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse

TIMEOUT = 60  # seconds for one request
PATIENCE = 30  # seconds in which a busy server is asked again
BUSY = (429, 500, 502, 503, 504)


class Unusable(Exception):
    """A kubeconfig that is of no use here; the text says why and what to do."""


class Refused(Exception):
    """An answer that is no success: `status`, and what the server said."""

    def __init__(self, method, path, status, said):
        super().__init__(f"{method} {path}: {status} {said}")
        self.status, self.said = status, said


class Access:
    """A server and what it takes to be let in. Plain values, so that a file of JSON can hold it."""

    def __init__(self, server, ca=None, server_name=None, insecure=False, token=None, certificate=None, key=None):
        url = urllib.parse.urlparse(server)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise Unusable(f"the server {server!r} is no http:// or https:// address")
        self.server, self.ca, self.insecure = server, ca, insecure
        self.token, self.certificate, self.key = token, certificate, key
        self.tls, self.host = url.scheme == "https", url.hostname
        self.port = url.port or (443 if self.tls else 80)
        self.base = url.path.rstrip("/")
        self.server_name = server_name or url.hostname

    def kubeconfig(self, port):
        """A kubeconfig that leads to the same server by way of `port` on this machine."""
        cluster = {"server": f"{'https' if self.tls else 'http'}://127.0.0.1:{port}{self.base}"}
        user = {}
        if self.tls:
            cluster["tls-server-name"] = self.server_name
        if self.insecure:
            cluster["insecure-skip-tls-verify"] = True
        elif self.ca:
            cluster["certificate-authority-data"] = encoded(self.ca)
        if self.token:
            user["token"] = self.token
        if self.certificate:
            user |= {"client-certificate-data": encoded(self.certificate), "client-key-data": encoded(self.key)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bench", "cluster": cluster}],
            "users": [{"name": "bench", "user": user}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            "current-context": "bench",
        }

    def context(self):
        """The TLS context, or None for plain HTTP."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca)
            if self.insecure:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if self.certificate:
                with tempfile.NamedTemporaryFile("w") as file:  # readable by us alone
                    file.write(f"{self.certificate}\n{self.key}\n")
                    file.flush()
                    context.load_cert_chain(file.name)
        except (ssl.SSLError, ValueError) as error:
            raise Unusable(f"its certificates cannot be used: {error}") from error
        return context


def encoded(text):
    return base64.b64encode(text.encode()).decode()


class Client:
    """One connection that is kept; `dial` makes the socket, which is opened again when it breaks."""

    def __init__(self, access, dial):
        self.access, self.dial, self.tls = access, dial, access.context()
        self.connection, self.patience = None, PATIENCE

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def fileno(self):
        """For select: readable when the answer has begun to arrive."""
        return self.connection.sock.fileno()

    def send(self, method, path, body=None):
        """Sends a request without waiting for what comes of it."""
        if not self.connection:
            plain = self.dial()
            plain.settimeout(TIMEOUT)
            self.connection = http.client.HTTPConnection(self.access.host)
            self.connection.sock = plain
            if self.tls:
                self.connection.sock = self.tls.wrap_socket(plain, server_hostname=self.access.server_name)
        headers = {"Accept": "application/json", "User-Agent": "shunt-bench"}
        if self.access.token:
            headers["Authorization"] = f"Bearer {self.access.token}"
        if body is not None:
            body = json.dumps(body, separators=(",", ":"))
            headers["Content-Type"] = "application/json"
        self.connection.request(method, self.access.base + path, body, headers)

    def answer(self, method, path):
        """The answer to what was sent."""
        response = self.connection.getresponse()
        text = response.read()
        if response.will_close:
            self.close()
        if response.status >= 300:
            raise Refused(method, path, response.status, said(text))
        try:
            return json.loads(text)
        except ValueError as error:
            raise ConnectionError(f"{method} {path}: the answer is no JSON: {said(text)}") from error

    def delete(self, path):
        """Deletes an object, which may be gone already."""
        try:
            self.ask("DELETE", path)
        except Refused as error:
            if error.status != 404:
                raise

    def ask(self, method, path, body=None):
        """Request and answer; a server that is busy, or a connection that broke, is asked again for a while.
        So a request may arrive twice: a caller who creates has to expect 409."""
        deadline, pause = time.monotonic() + self.patience, 0.1
        while True:
            try:
                self.send(method, path, body)
                return self.answer(method, path)
            except Refused as error:
                # a full range of addresses is 500, too, and stays full
                if error.status not in BUSY or "range is full" in error.said or time.monotonic() > deadline:
                    raise
            except ssl.SSLCertVerificationError:
                raise
            except http.client.HTTPException as error:
                self.close()
                if time.monotonic() > deadline:
                    raise ConnectionError(f"{method} {path}: {error!r}") from error
            except OSError:
                self.close()
                if time.monotonic() > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 2)


def said(text):
    """The message of a Status, or the beginning of whatever else came."""
    try:
        return json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        return text[:200].decode(errors="replace").strip()


def parallel(make_client, items, do, workers):
    """Calls `do(client, item)` for each item, over so many connections; raises what the first failure raised."""
    waiting, failures = queue.SimpleQueue(), []
    for item in items:
        waiting.put(item)

    def work():
        client = make_client()
        try:
            while not failures:
                do(client, waiting.get_nowait())
        except queue.Empty:
            pass
        except Exception as error:  # noqa: BLE001, raised again below
            failures.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def dial(access):
    """A socket from here to the server."""
    return socket.create_connection((access.host, access.port), timeout=10)


def read(path):
    """The Access that the current context of a kubeconfig means."""
    config = parse(path)
    folder = os.path.dirname(os.path.abspath(path))
    context = named(config, "contexts", config.get("current-context") or one_name(config), "context")
    cluster = named(config, "clusters", context.get("cluster"), "cluster")
    user = named(config, "users", context["user"], "user") if context.get("user") else {}
    for way in ("exec", "auth-provider", "username"):
        if way in user:
            raise Unusable(
                f"user {context['user']!r} logs in by `{way}`, which the bench cannot: give it a kubeconfig with a token "
                "(kubectl create token) or a client certificate"
            )
    if cluster.get("proxy-url"):
        raise Unusable("its cluster has a proxy-url, which the bench cannot use")
    certificate = material(user, "client-certificate", folder)
    key = material(user, "client-key", folder)
    if bool(certificate) != bool(key):
        raise Unusable("its user has one of client-certificate and client-key without the other")
    token = user.get("token")
    if user.get("tokenFile"):
        token = text_of(os.path.join(folder, user["tokenFile"])).strip()
    return Access(
        cluster.get("server", ""),
        material(cluster, "certificate-authority", folder),
        cluster.get("tls-server-name"),
        bool(cluster.get("insecure-skip-tls-verify")),
        token,
        certificate,
        key,
    )


def parse(path):
    """A kubeconfig as a dictionary: JSON by ourselves, YAML by python3-yaml or by kubectl."""
    text = text_of(path)
    try:
        config = json.loads(text)
    except ValueError:
        config = from_yaml(path, text)
    if not isinstance(config, dict) or config.get("kind", "Config") != "Config":
        raise Unusable("it is no kubeconfig (kind: Config)")
    return config


def from_yaml(path, text):
    try:
        import yaml  # noqa: PLC0415, only where it is needed
    except ImportError:
        if not shutil.which("kubectl"):
            raise Unusable("it is YAML, and here is neither python3-yaml nor kubectl to read it") from None
        command = ["kubectl", "config", "view", "--raw", "--flatten", "-o", "json", "--kubeconfig", path]
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
        if shown.returncode:
            raise Unusable(f"kubectl cannot read it: {shown.stderr.strip()}") from None
        return json.loads(shown.stdout)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Unusable(f"it is no YAML: {' '.join(str(error).split())}") from error


def one_name(config):
    contexts = config.get("contexts") or []
    if len(contexts) != 1:
        raise Unusable(f"it has no current-context, and {len(contexts)} contexts to choose from")
    return contexts[0].get("name")


def named(config, kind, name, field):
    for entry in config.get(kind) or []:
        if entry.get("name") == name:
            return entry.get(field) or {}
    raise Unusable(f"its {kind} have no entry {name!r}")


def material(holder, field, folder):
    """What a certificate or key field holds, as data or as the name of a file; None without either."""
    if holder.get(f"{field}-data"):
        try:
            data = "".join(str(holder[f"{field}-data"]).split())  # YAML may have broken it into lines
            return base64.b64decode(data, validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise Unusable(f"{field}-data is no base64 of PEM: {error}") from error
    return text_of(os.path.join(folder, holder[field])) if holder.get(field) else None


def text_of(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"{path}: {getattr(error, 'strerror', None) or error}") from error
