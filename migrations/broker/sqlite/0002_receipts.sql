-- What a delivery under way looks like to an operator. It decides nothing: a restart voids claims.
ALTER TABLE deliveries ADD COLUMN claim_id INTEGER;          -- the connection that it goes out on
ALTER TABLE deliveries ADD COLUMN claimed_at INTEGER;
ALTER TABLE deliveries ADD COLUMN claim_expires_at INTEGER;  -- if its push left at once
ALTER TABLE deliveries ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;

-- How far each settled delivery came, for its sender: one row a delivery, of its highest rung.
CREATE TABLE receipts (
    mesh              TEXT    NOT NULL,
    recipient         TEXT    NOT NULL,
    seq               INTEGER NOT NULL,
    sender            TEXT    NOT NULL,
    n                 INTEGER NOT NULL,     -- rising for each sender, never reused
    recipient_pubkey  TEXT    NOT NULL,
    message_id        TEXT    NOT NULL,
    client_message_id TEXT    NOT NULL,
    rung              TEXT    NOT NULL,     -- delivered, seen, expired, dead
    reason            TEXT,
    at                INTEGER NOT NULL,
    PRIMARY KEY (mesh, recipient, seq),
    FOREIGN KEY (mesh, seq) REFERENCES messages (mesh, seq) DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

-- A sender that was away asks for what came after the last that it has.
CREATE UNIQUE INDEX receipts_of_sender ON receipts (mesh, sender, n);
CREATE INDEX receipts_of_message ON receipts (mesh, seq);

-- The last number given to each sender: it outlives the rows. `forgotten` stands for all senders
-- that are known no longer, so that nobody's numbers begin below theirs.
CREATE TABLE receipt_numbers (
    mesh   TEXT    NOT NULL,
    sender TEXT    NOT NULL,
    last_n INTEGER NOT NULL,
    PRIMARY KEY (mesh, sender)
) STRICT, WITHOUT ROWID;

-- Messages are asked for by the beginning of their id.
CREATE INDEX messages_by_id ON messages (mesh, id);
