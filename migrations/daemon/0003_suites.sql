-- By what a message came sealed (x1 or box), null where that is not known; and by what a peer is
-- written to, null where nobody told yet.
ALTER TABLE inbox     ADD COLUMN seal  TEXT;
ALTER TABLE directory ADD COLUMN suite TEXT;
-- Nothing else was opened before.
UPDATE inbox SET seal = 'x1' WHERE body IS NOT NULL;
