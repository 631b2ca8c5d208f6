-- name: cleanup.rate_limits
-- schedule: 0 4 * * *
-- retries: 2
-- counter: deleted
-- Delete the windows of the rate limiter that have ended by the slot.
-- Counters: deleted: windows that are gone
-- From: Sneaky Klaus: rate limit cleanup
DELETE FROM rate_limits WHERE expires_at <= :slot;
