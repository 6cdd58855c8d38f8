-- How a row's fingerprint is said to brokers since its first time on a wire: 1, 2, or not chosen.
-- What was on a wire before this column was there left in form 2.
ALTER TABLE outbox ADD COLUMN form INTEGER;
UPDATE outbox SET form = 2 WHERE on_wire = 1;
