// Package packages tells which files came from Debian packages and are as they
// came.
//
// A file counts as unchanged when all of this holds: dpkg's status lists the
// package as installed; the package's file list names the path; the file's MD5
// sum is the one that the package brought (or, for a configuration file, the
// one in the status); the list of sums is not newer than the file list, which
// dpkg writes at the unpacking; and the file belongs to root and nobody else
// may write it. Who is root can forge all of it, so this protects the system
// from the agent rather than showing that a file is harmless.
package packages
