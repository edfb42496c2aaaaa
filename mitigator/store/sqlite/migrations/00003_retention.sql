-- +goose Up
-- What retention walks, and what keeps it from removing what is needed.
CREATE INDEX endpoint_unknown ON endpoint (id) WHERE address <> '' AND agent_id = '';
CREATE INDEX binding_mac_seen ON binding (mac, last_seen);
CREATE INDEX binding_ended ON binding (ended) WHERE ended > 0;
CREATE INDEX threat_ended ON threat (ended_at) WHERE ended_at > 0;
CREATE INDEX threat_quarantine ON threat (quarantine_id) WHERE quarantine_id <> '';
CREATE INDEX quarantine_threat ON quarantine (threat_id);
CREATE INDEX device_order_quarantine ON device_order (quarantine_id);

-- +goose Down
DROP INDEX device_order_quarantine;
DROP INDEX quarantine_threat;
DROP INDEX threat_quarantine;
DROP INDEX threat_ended;
DROP INDEX binding_ended;
DROP INDEX binding_mac_seen;
DROP INDEX endpoint_unknown;
