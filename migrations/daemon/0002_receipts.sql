-- How far a message came beyond its acceptance, at each of its recipients, as its broker told.
CREATE TABLE rungs (
    seq       INTEGER NOT NULL,         -- of `outbox`
    recipient TEXT    NOT NULL,
    rung      TEXT    NOT NULL,         -- expired, dead, delivered or seen
    at        TEXT    NOT NULL,         -- as the broker wrote it: ISO 8601
    reason    TEXT,
    PRIMARY KEY (seq, recipient, rung)
) STRICT, WITHOUT ROWID;

-- The highest number of a receipt that a sender has: its next hello asks for those after it.
CREATE TABLE receipts (
    mesh   TEXT    NOT NULL,
    sender TEXT    NOT NULL,
    last_n INTEGER NOT NULL,
    PRIMARY KEY (mesh, sender)
) STRICT, WITHOUT ROWID;

-- Rows of `inbox` that were read, and whose broker does not know it yet.
CREATE TABLE seen_owed (
    mesh       TEXT    NOT NULL,
    recipient  TEXT    NOT NULL,
    seq        INTEGER NOT NULL,
    message_id TEXT    NOT NULL,
    PRIMARY KEY (mesh, recipient, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX seen_owed_by_seq  ON seen_owed (seq);
CREATE INDEX outbox_by_message ON outbox (broker_message_id) WHERE broker_message_id IS NOT NULL;
CREATE INDEX inbox_by_message  ON inbox (message_id);
