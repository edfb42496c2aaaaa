-- +goose Up
-- Times are microseconds since 1970 UTC, 0 for none. Addresses are text in
-- netip's form, MACs are 6-byte blobs.

CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO setting (name, value)
VALUES ('epoch', CAST(CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) AS TEXT));

CREATE TABLE endpoint (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    hostname   TEXT NOT NULL,
    address    TEXT NOT NULL,
    agent_id   TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL
);
CREATE INDEX endpoint_address ON endpoint (address) WHERE address <> '';
CREATE INDEX endpoint_agent ON endpoint (agent_id) WHERE agent_id <> '';
CREATE INDEX endpoint_hostname ON endpoint (hostname) WHERE hostname <> '';

CREATE TABLE endpoint_mac (
    mac         BLOB PRIMARY KEY,
    endpoint_id INTEGER NOT NULL REFERENCES endpoint (id)
) WITHOUT ROWID;
CREATE INDEX endpoint_mac_endpoint ON endpoint_mac (endpoint_id);

CREATE TABLE binding (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    address   TEXT NOT NULL,
    mac       BLOB NOT NULL,
    began     INTEGER NOT NULL,
    ended     INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    source    TEXT NOT NULL
);
CREATE INDEX binding_address ON binding (address, began);
CREATE INDEX binding_mac ON binding (mac) WHERE ended = 0;

CREATE TABLE threat (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint_id   INTEGER NOT NULL REFERENCES endpoint (id),
    kind          TEXT NOT NULL,
    signature     TEXT NOT NULL,
    severity      TEXT NOT NULL,
    role          TEXT NOT NULL,
    role_reason   TEXT NOT NULL,
    containable   INTEGER NOT NULL,
    spoofable     TEXT NOT NULL,
    state         TEXT NOT NULL,
    flows         TEXT NOT NULL,
    event_count   INTEGER NOT NULL,
    first_seen    INTEGER NOT NULL,
    last_seen     INTEGER NOT NULL,
    opened_at     INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    ended_at      INTEGER NOT NULL,
    quarantine_id TEXT NOT NULL,
    waiting_for   TEXT NOT NULL
);
CREATE INDEX threat_endpoint_kind ON threat (endpoint_id, kind, id);
CREATE INDEX threat_open ON threat (endpoint_id) WHERE ended_at = 0;

CREATE TABLE transition (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    threat_id  INTEGER NOT NULL REFERENCES threat (id),
    from_state TEXT NOT NULL,
    to_state   TEXT NOT NULL,
    at         INTEGER NOT NULL,
    cause      TEXT NOT NULL,
    actor      TEXT NOT NULL
);
CREATE INDEX transition_threat ON transition (threat_id);

CREATE TABLE task (
    id           TEXT PRIMARY KEY,
    threat_id    INTEGER NOT NULL REFERENCES threat (id),
    agent_id     TEXT NOT NULL,
    kind         TEXT NOT NULL,
    state        TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    hold_until   INTEGER NOT NULL,
    delivered_at INTEGER NOT NULL,
    work_limit   INTEGER NOT NULL,
    ended_at     INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,
    result       BLOB
);
CREATE INDEX task_threat ON task (threat_id);
CREATE INDEX task_open ON task (agent_id, created_at) WHERE ended_at = 0;
CREATE INDEX task_due ON task (due_at) WHERE ended_at = 0;

CREATE TABLE quarantine (
    id           TEXT PRIMARY KEY,
    endpoint_id  INTEGER NOT NULL REFERENCES endpoint (id),
    threat_id    INTEGER NOT NULL,
    macs         BLOB NOT NULL,
    access       TEXT NOT NULL,
    reason       TEXT NOT NULL,
    actor        TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    state        TEXT NOT NULL,
    ordered      INTEGER NOT NULL,
    active       INTEGER NOT NULL,
    detail       TEXT NOT NULL,
    in_force_at  INTEGER NOT NULL,
    ended_at     INTEGER NOT NULL,
    ended_by     TEXT NOT NULL,
    confirmation TEXT NOT NULL
);
-- At most one active quarantine an endpoint: the store holds it, not the caller.
CREATE UNIQUE INDEX quarantine_active ON quarantine (endpoint_id) WHERE active = 1;
CREATE INDEX quarantine_ordered ON quarantine (id) WHERE ordered = 1;
CREATE INDEX quarantine_state ON quarantine (state, created_at);
CREATE INDEX quarantine_created ON quarantine (created_at);
CREATE INDEX quarantine_active_created ON quarantine (created_at) WHERE active = 1;
CREATE INDEX quarantine_endpoint ON quarantine (endpoint_id);
CREATE INDEX quarantine_expires ON quarantine (expires_at) WHERE active = 1 AND expires_at > 0;

CREATE TABLE device_order (
    revision      INTEGER PRIMARY KEY AUTOINCREMENT,
    quarantine_id TEXT NOT NULL
);

CREATE TABLE event (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    source      TEXT NOT NULL,
    key         BLOB NOT NULL,
    at          INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    signature   TEXT NOT NULL,
    category    TEXT NOT NULL,
    severity    TEXT NOT NULL,
    protocol    INTEGER NOT NULL,
    src         TEXT NOT NULL,
    dst         TEXT NOT NULL,
    disposition TEXT NOT NULL,
    reason      TEXT NOT NULL,
    raw         BLOB NOT NULL,
    UNIQUE (source, key)
);

-- A flow between two machines of ours feeds a threat on each.
CREATE TABLE event_threat (
    event_id  INTEGER NOT NULL,
    threat_id INTEGER NOT NULL,
    PRIMARY KEY (event_id, threat_id)
) WITHOUT ROWID;
CREATE INDEX event_threat_threat ON event_threat (threat_id, event_id);

CREATE TABLE reject (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    at     INTEGER NOT NULL,
    reason TEXT NOT NULL,
    raw    BLOB NOT NULL
);
CREATE INDEX reject_source ON reject (source, id);

CREATE TABLE source (
    name    TEXT PRIMARY KEY,
    cursor  BLOB,
    events  INTEGER NOT NULL DEFAULT 0,
    rejects INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE agent (
    id               TEXT PRIMARY KEY,
    hostname         TEXT NOT NULL,
    version          TEXT NOT NULL,
    observer         TEXT NOT NULL,
    serial           TEXT NOT NULL,
    enrolled_at      INTEGER NOT NULL,
    last_seen        INTEGER NOT NULL,
    cert_expires     INTEGER NOT NULL,
    revoked_at       INTEGER NOT NULL,
    revoked_by       TEXT NOT NULL,
    revoke_reason    TEXT NOT NULL
);

CREATE TABLE token (
    hash       BLOB PRIMARY KEY,
    comment    TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER NOT NULL,
    used_by    TEXT NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE token;
DROP TABLE agent;
DROP TABLE source;
DROP TABLE reject;
DROP TABLE event_threat;
DROP TABLE event;
DROP TABLE device_order;
DROP TABLE quarantine;
DROP TABLE task;
DROP TABLE transition;
DROP TABLE threat;
DROP TABLE binding;
DROP TABLE endpoint_mac;
DROP TABLE endpoint;
DROP TABLE setting;
