-- A broker's database: every mesh that it owns. Times are unix milliseconds of the broker's clock,
-- keys and fingerprints lower-case hex. A peer is written `session:KEY` or `member:ID`.

-- Who may write: a row for each mesh, and one named `registry` for the table of meshes. Each start
-- raises the term; each commit moves last_txn under it.
CREATE TABLE owner (
    mesh     TEXT    NOT NULL PRIMARY KEY,
    term     INTEGER NOT NULL,
    last_txn INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The highest message number ever given: numbers are not reused when messages are pruned.
CREATE TABLE high_water (
    mesh     TEXT    NOT NULL PRIMARY KEY,
    last_seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE meshes (
    id           TEXT    NOT NULL PRIMARY KEY,
    slug         TEXT    NOT NULL UNIQUE,
    owner_pubkey TEXT    NOT NULL,
    policy       TEXT    NOT NULL,      -- sealed, or open: the broker may read bodies
    created_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
    mesh         TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    pubkey       TEXT    NOT NULL,
    display_name TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    joined_at    INTEGER NOT NULL,
    revoked_at   INTEGER,
    PRIMARY KEY (mesh, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE invites (
    mesh       TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    uses_left  INTEGER,                 -- null: as many as the invite lives
    expires_at INTEGER NOT NULL,
    revoked    INTEGER NOT NULL,
    PRIMARY KEY (mesh, id)
) STRICT, WITHOUT ROWID;

-- Outlives the lease, so that mail can wait for the absent.
CREATE TABLE peers (
    mesh         TEXT    NOT NULL,
    peer         TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    member       TEXT    NOT NULL,
    pubkey       TEXT    NOT NULL,
    present      INTEGER NOT NULL,      -- the lease stands: live, or in grace
    joined_at    INTEGER NOT NULL,
    last_seen    INTEGER NOT NULL,
    registration TEXT    NOT NULL,      -- JSON: what the peer registered
    name         TEXT    AS (registration ->> '$.about.displayName') VIRTUAL,
    status       TEXT    AS (registration ->> '$.status') VIRTUAL,
    summary      TEXT    AS (registration ->> '$.summary') VIRTUAL,
    PRIMARY KEY (mesh, peer)
) STRICT, WITHOUT ROWID;

-- The history. The ciphertext is never read by the broker.
CREATE TABLE messages (
    mesh              TEXT    NOT NULL,
    seq               INTEGER NOT NULL,
    id                TEXT    NOT NULL,
    sender            TEXT    NOT NULL,
    sender_pubkey     TEXT    NOT NULL,
    sender_member     TEXT    NOT NULL,
    sender_name       TEXT    NOT NULL,
    target_spec       TEXT    NOT NULL,
    priority          TEXT    NOT NULL,
    client_message_id TEXT    NOT NULL,
    fingerprint       TEXT    NOT NULL,
    reply_to          TEXT,
    body_version      INTEGER,
    seal              TEXT,
    created_at        INTEGER NOT NULL,
    weight            INTEGER NOT NULL, -- bytes that it counts against a recipient's cap
    nonce             TEXT    NOT NULL,
    ciphertext        TEXT    NOT NULL,
    PRIMARY KEY (mesh, seq)
) STRICT;

CREATE TABLE dedupe (
    mesh              TEXT    NOT NULL,
    sender            TEXT    NOT NULL,
    client_message_id TEXT    NOT NULL,
    fingerprint       TEXT    NOT NULL,
    message_id        TEXT    NOT NULL,
    seq               INTEGER NOT NULL,
    first_seen_at     INTEGER NOT NULL,
    PRIMARY KEY (mesh, sender, client_message_id)
) STRICT, WITHOUT ROWID;

-- What is owed to whom. A settled delivery has no row.
CREATE TABLE deliveries (
    mesh      TEXT    NOT NULL,
    recipient TEXT    NOT NULL,
    seq       INTEGER NOT NULL,
    PRIMARY KEY (mesh, recipient, seq),
    FOREIGN KEY (mesh, seq) REFERENCES messages (mesh, seq) DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

-- A message that goes looks for those that are owed it.
CREATE INDEX deliveries_of_message ON deliveries (mesh, seq);
