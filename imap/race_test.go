//go:build race

package imap

// The race detector keeps memory of its own.
const raceDetector = true
