//! End to end: the real binary, real files, real sockets.

mod support;

mod any_schema;
mod backup;
mod bench;
mod clear;
mod crash;
mod devices;
mod disk;
mod doctor;
mod documented;
mod encryption;
mod explain;
mod fallback;
mod files;
mod guides;
mod hidden_columns;
mod history;
mod integer_keys;
mod login;
mod manners;
mod many_devices;
mod migrations;
mod operations;
mod oracle;
mod refused;
mod settings;
mod sharing;
mod sidecar;
mod sim;
mod tls;
mod trouble;
mod two_devices;
mod unfit;
mod users;
mod watch;
