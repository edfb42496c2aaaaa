// Package e2e has the tests that need more than one room of Cordon at once.
package e2e
