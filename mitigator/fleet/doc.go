// Package fleet is the mitigator's side of the agent channel: it enrols agents
// with one-time tokens, renews and revokes their certificates, and pushes tasks
// to them and takes their results in (AgentService of the wire protocol).
//
// An agent is who its verified client certificate says, and nothing that a
// request carries changes that. What is durable lies behind two small
// interfaces: Store keeps agents and tokens, Lifecycle keeps tasks.
package fleet
