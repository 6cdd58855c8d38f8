-- A host's database: one daemon, every mesh that its user joined. Times are unix milliseconds of
-- the host's clock, public keys and fingerprints lower-case hex, secret keys blobs: this file is
-- for its owner's eyes. A peer is written `session:KEY` or `member:ID`.

-- Who may write: one row, named `host`. Each start raises the term; each commit moves last_txn.
CREATE TABLE owner (
    mesh     TEXT    NOT NULL PRIMARY KEY,
    term     INTEGER NOT NULL,
    last_txn INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The highest row number ever given in `outbox` and in `inbox`: numbers are never reused.
CREATE TABLE high_water (
    box      TEXT    NOT NULL PRIMARY KEY,
    last_seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO high_water (box, last_seq) VALUES ('outbox', 0), ('inbox', 0);

CREATE TABLE meshes (
    id            TEXT    NOT NULL PRIMARY KEY,
    slug          TEXT    NOT NULL,
    broker_url    TEXT    NOT NULL,
    policy        TEXT    NOT NULL,
    display_name  TEXT    NOT NULL,
    member_id     TEXT    NOT NULL,
    member_secret BLOB    NOT NULL,
    owner_pubkey  TEXT    NOT NULL,
    owner_secret  BLOB,
    mesh_root_key TEXT    NOT NULL,
    joined_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    mesh         TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    secret       BLOB    NOT NULL,
    token_sha256 BLOB    NOT NULL,
    pid          INTEGER,
    cwd          TEXT    NOT NULL,
    groups       TEXT    NOT NULL,      -- JSON: an array of names
    opened_at    INTEGER NOT NULL,
    ended_at     INTEGER,
    PRIMARY KEY (mesh, id)
) STRICT, WITHOUT ROWID;

-- Peers as they were last seen, so that names resolve while the broker is away.
CREATE TABLE directory (
    mesh          TEXT    NOT NULL,
    pubkey        TEXT    NOT NULL,
    member_pubkey TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    role          TEXT    NOT NULL,
    present       INTEGER NOT NULL,     -- our sessions were last told that it is here
    last_seen     INTEGER NOT NULL,
    PRIMARY KEY (mesh, pubkey)
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    seq               INTEGER NOT NULL PRIMARY KEY,
    mesh              TEXT    NOT NULL,
    sender            TEXT    NOT NULL,
    session           TEXT,
    client_message_id TEXT    NOT NULL,
    form_1            TEXT    NOT NULL,
    form_2            TEXT    NOT NULL,
    "to"              TEXT    NOT NULL, -- as the caller gave it
    target            TEXT    NOT NULL, -- what it resolved to
    priority          TEXT    NOT NULL,
    reply_to          TEXT,
    accepted_at       INTEGER NOT NULL,
    status            TEXT    NOT NULL, -- pending, inflight, done, dead or aborted
    attempts          INTEGER NOT NULL,
    on_wire           INTEGER NOT NULL,
    next_attempt_at   INTEGER,
    last_error        TEXT,
    broker_message_id TEXT,
    settled_at        INTEGER,
    weight            INTEGER NOT NULL, -- bytes that it counts against the disk cap
    meta              TEXT    NOT NULL, -- canonical JSON, empty when absent
    body              TEXT    NOT NULL
) STRICT;

CREATE INDEX outbox_by_id     ON outbox (mesh, sender, client_message_id, seq);
CREATE INDEX outbox_by_sender ON outbox (mesh, sender, seq);
CREATE INDEX outbox_unsettled ON outbox (seq) WHERE status IN ('pending', 'inflight');

CREATE TABLE inbox (
    seq               INTEGER NOT NULL PRIMARY KEY,
    mesh              TEXT    NOT NULL,
    recipient         TEXT    NOT NULL,
    session           TEXT,
    sender            TEXT    NOT NULL,
    sender_name       TEXT    NOT NULL,
    client_message_id TEXT    NOT NULL,
    message_id        TEXT    NOT NULL,
    priority          TEXT    NOT NULL,
    reply_to          TEXT,
    sent_at           TEXT    NOT NULL,
    received_at       INTEGER NOT NULL,
    seen_at           INTEGER,
    weight            INTEGER NOT NULL, -- bytes that it counts against the disk cap
    meta              TEXT,             -- canonical JSON, empty when absent
    body              TEXT,             -- null: it did not open, and is kept as it came
    nonce             TEXT,
    ciphertext        TEXT,
    UNIQUE (mesh, recipient, sender, client_message_id)
) STRICT;

CREATE INDEX inbox_by_recipient ON inbox (mesh, recipient, seq);
