-- name: cleanup.rate_limits
-- schedule: 0 4 * * *
-- retries: 2
-- counter: deleted
-- Delete the windows of the rate limiter that have ended by the slot.
DELETE FROM rate_limits WHERE expires_at <= :slot;
