"""Duet beside the product of docs/embed.md, behind the proxy files of docs/examples."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import socket
import ssl
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from tests.support.documents import DOCS
from tests.support.processes import gateway_process, profile_process
from tests.support.waiting import until

__all__ = ["PROXIES", "Embedded", "embedded", "make_certificate", "proxy_path"]

EXAMPLES = DOCS / "examples"
HOST = "shop.example.org"
PROXIES = ("nginx", "caddy")

_NGINX = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/duet.conf;
}}
"""
_CADDY = """{{
	admin off
	http_port {http}
	https_port {https}
}}
"""


def proxy_path(name: str) -> str | None:
    """Where a proxy is, if it is installed; not everybody's PATH has /usr/sbin."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclasses.dataclass
class Embedded:
    """All of it, running."""

    port: int
    certificate: Path
    data_dir: Path
    folder: Path
    """Where the proxy writes its logs, if it does."""

    @property
    def origin(self) -> str:
        """The one address that people see."""
        return f"https://localhost:{self.port}"

    @property
    def trust(self) -> ssl.SSLContext:
        """Trusts the certificate of this proxy, and no other."""
        return ssl.create_default_context(cafile=self.certificate)


@contextlib.asynccontextmanager
async def embedded(folder: Path, proxy: str) -> AsyncIterator[Embedded]:
    """Run the product, both services with the settings of the guide, and a proxy before them."""
    ports = dict(zip(("http", "https", "product", "profile", "gateway"), _free(5), strict=True))
    running = Embedded(ports["https"], folder / "certificate.pem", folder / "data", folder)
    make_certificate(running.certificate, folder / "certificate.key")
    _make_key(folder / "shop.pem")
    settings = {
        "DUET_ALLOWED_ORIGINS": running.origin,
        "DUET_PROFILE_TRUSTED_PROXIES": "127.0.0.1",
        "DUET_GATEWAY_TRUSTED_PROXIES": "127.0.0.1",
        "DUET_EXTERNAL_ISSUER": running.origin,
        "DUET_EXTERNAL_AUDIENCE": "duet",
        "DUET_EXTERNAL_JWKS_URL": f"http://127.0.0.1:{ports['product']}/jwks.json",
        "DUET_SIGN_UP": "closed",
        "DUET_PROFILE_PORT": str(ports["profile"]),
        "DUET_GATEWAY_PORT": str(ports["gateway"]),
    }
    shop = {
        "SHOP_URL": running.origin,
        "SHOP_PORT": str(ports["product"]),
        "SHOP_KEY": str(folder / "shop.pem"),
    }
    command, environment = _proxy(proxy, folder, ports)
    async with contextlib.AsyncExitStack() as stack:
        product = [sys.executable, str(EXAMPLES / "product.py")]
        await stack.enter_async_context(_running(product, shop, ports["product"]))
        profile = await stack.enter_async_context(profile_process(running.data_dir, **settings))
        url = await profile.url()
        gateway = await stack.enter_async_context(
            gateway_process(running.data_dir, url, **settings)
        )
        await gateway.logged("listening")
        await stack.enter_async_context(_running(command, environment, ports["https"]))
        yield running


def _proxy(name: str, folder: Path, ports: Mapping[str, int]) -> tuple[list[str], dict[str, str]]:
    """Write the example with this test's places, and say how to run it."""
    path = proxy_path(name)
    assert path is not None
    if name == "nginx":
        places = {
            f"/etc/ssl/{HOST}.pem": str(folder / "certificate.pem"),
            f"/etc/ssl/{HOST}.key": str(folder / "certificate.key"),
            "listen 80;": f"listen 127.0.0.1:{ports['http']};",
            "listen 443 ssl;": f"listen 127.0.0.1:{ports['https']} ssl;",
            f"server_name {HOST};": "server_name localhost;",
        }
        (folder / "duet.conf").write_text(_example("nginx.conf", places, ports))
        main = folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        main.write_text(_NGINX.format(folder=folder, user=user))
        return [path, "-p", str(folder), "-e", "stderr", "-c", str(main)], {}
    certificate = f"\ttls {folder}/certificate.pem {folder}/certificate.key"
    places = {f"{HOST} {{": f"https://localhost {{\n\tbind 127.0.0.1\n{certificate}"}
    main = folder / "Caddyfile"
    heading = _CADDY.format(http=ports["http"], https=ports["https"])
    main.write_text(heading + _example("Caddyfile", places, ports))
    home = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "HOME": str(folder)}
    return [path, "run", "--config", str(main), "--adapter", "caddyfile"], home


def _example(name: str, places: Mapping[str, str], ports: Mapping[str, int]) -> str:
    text = (EXAMPLES / name).read_text()
    known = {"product": 9000, "profile": 8000, "gateway": 8765}
    addresses = {f"127.0.0.1:{port}": f"127.0.0.1:{ports[who]}" for who, port in known.items()}
    for old, new in {**places, **addresses}.items():
        assert old in text, f"docs/examples/{name} does not say {old!r} any more"
        text = text.replace(old, new)
    return text


@contextlib.asynccontextmanager
async def _running(
    command: list[str], environment: Mapping[str, str], port: int
) -> AsyncIterator[None]:
    """Run something until it listens, and to the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **environment}, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    assert process.stdout is not None
    reading = asyncio.create_task(process.stdout.read())
    try:
        await until(lambda: process.returncode is not None or _listens(port), within_s=30)
        assert process.returncode is None, (await reading).decode()
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await reading


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def _free(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [int(listener.getsockname()[1]) for listener in listeners]


def _make_key(path: Path) -> None:
    path.write_bytes(_pem(ed25519.Ed25519PrivateKey.generate()))


def make_certificate(path: Path, key_path: Path) -> None:
    """Make a self-signed certificate of `localhost`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(_pem(key))


def _pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
