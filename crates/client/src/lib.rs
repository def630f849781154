//! Keeps a SQLite database in step with a Syncline server.
