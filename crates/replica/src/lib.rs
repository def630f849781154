//! One device's database: capture, outbox, apply, conflicts and the session state machine. Sans-IO.
