//! Embedded storage of the Syncline server.
