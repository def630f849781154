//! End to end: the real binary, real files, real sockets.

mod support;

mod two_devices;
