// Package link is the agent's side of the agent channel: it enrols the endpoint
// at its mitigator, keeps its certificate fresh, takes tasks, has them carried
// out, and keeps each result on disk until the mitigator has acknowledged it.
//
// Below the state directory lie
//
//	identity.json  the agent's key, certificate, CA and mitigator (secret)
//	enrolling.pem  the key of an enrolment that is under way (secret)
//	accepted/      tasks taken and not finished
//	outbox/        results not acknowledged yet
//	done/          the last results that were acknowledged
//	refused/       results that the mitigator refused, kept for a person
//
// A task is carried out once as long as the agent lives through it. When the
// agent dies in between, the mitigator delivers the task again and it is
// carried out again, so what an Executor does must be idempotent.
package link
