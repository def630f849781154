//! How metadata and log entries lie in a database: CBOR arrays, to which later versions may
//! append elements. Readers skip what they do not know.

mod entry;
mod history;
mod meta;
mod parts;
#[cfg(test)]
mod tests;

use minicbor::{Encoder, decode, encode};

/// Bytes that are no encoding: damaged, or of a later version that changed what it must not.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct EncodingError {
    what: &'static str,
    #[source]
    source: decode::Error,
}

type Encoded = Result<(), encode::Error<std::convert::Infallible>>;
type Out<'a> = Encoder<&'a mut Vec<u8>>;

const IN_MEMORY: &str = "writing into memory cannot fail";
