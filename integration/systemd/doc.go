// Package systemd tests the built binary as a service of a real systemd, from the
// unit in examples/. It installs that as its reader would, in /etc, and so runs
// in a virtual machine alone: see internal/vmtest. What needs no more than the
// protocol of systemd is tested in integration, with a stand-in.
package systemd
