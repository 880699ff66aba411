"""Names what commonly listens at an address."""

from __future__ import annotations

#: Port -> what commonly listens there.
_BY_PORT = {
    22: "SSH",
    25: "an SMTP server",
    53: "a DNS server",
    80: "an HTTP server",
    110: "a POP3 server",
    143: "an IMAP server",
    389: "LDAP",
    443: "an HTTPS server",
    465: "an SMTP server",
    587: "an SMTP server",
    636: "LDAP",
    853: "a DNS server",
    993: "an IMAP server",
    1433: "Microsoft SQL Server",
    1521: "Oracle",
    1883: "an MQTT broker",
    2049: "NFS",
    2181: "ZooKeeper",
    2379: "etcd",
    3128: "an HTTP proxy",
    3306: "MySQL",
    4222: "NATS",
    4317: "an OpenTelemetry collector",
    4318: "an OpenTelemetry collector",
    5432: "PostgreSQL",
    5433: "PostgreSQL",
    5671: "RabbitMQ",
    5672: "RabbitMQ",
    6379: "Redis",
    6380: "Redis",
    6432: "PgBouncer",
    8000: "an HTTP server",
    8080: "an HTTP server",
    8086: "InfluxDB",
    8125: "a StatsD server",
    8200: "Vault",
    8443: "an HTTPS server",
    8500: "Consul",
    9000: "MinIO or ClickHouse",
    9042: "Cassandra",
    9092: "Kafka",
    9200: "Elasticsearch",
    9418: "Git",
    11211: "memcached",
    15672: "RabbitMQ's management",
    26379: "Redis Sentinel",
    27017: "MongoDB",
}

#: Part of the path of a Unix socket -> what commonly listens there.
_BY_PATH = {
    ".s.PGSQL.6432": "PgBouncer",
    ".s.PGSQL.": "PostgreSQL",
    "mysql": "MySQL",
    "redis": "Redis",
    "memcached": "memcached",
    "docker.sock": "Docker",
    "nscd": "the name service cache",
    "systemd-resolved": "the system's resolver",
    "/dev/log": "the system's log",
}


def service_at(peer: str) -> str | None:
    """Returns: What commonly listens at `host:port` or at the path of a Unix socket; None if nothing is known."""
    port = peer.rpartition(":")[2]
    if "/" not in peer and port.isdecimal():
        return _BY_PORT.get(int(port))
    return next((name for part, name in _BY_PATH.items() if part in peer), None)
