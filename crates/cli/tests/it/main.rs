//! End to end: the real binary, real files, real sockets.

mod support;

mod many_devices;
mod two_devices;
mod watch;
